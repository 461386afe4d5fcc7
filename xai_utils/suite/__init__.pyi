from .run import Record as Record
from .run import Run as Run
from .run import load_record as load_record
from .run import results_root as results_root
from .run import start as start
from .run import versions as versions
