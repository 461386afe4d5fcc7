from .answer import load_network as load_network
from .parameters import arms as arms
from .record import Record as Record
from .record import load_record as load_record
from .record import results_root as results_root
from .run import Run as Run
from .run import start as start
from .run import versions as versions
