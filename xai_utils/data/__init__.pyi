from .imageset import FAMILIES as FAMILIES
from .imageset import ImageSet as ImageSet
from .imageset import load as load
from .imageset import stratified_split as stratified_split
from .origins import fetch as fetch
from .store import repository_root as repository_root
