"""Parameter trees and training state as TensorFlow checkpoints, and back.

    contents                   what a checkpoint holds, and TensorFlow's names for it
    past_names, renaming       the names of older versions, and a caller's own changes
    saving                     writing
    slots, loading             which tensors are an optimizer's state; reading

The file format itself is in `minilstm.tensorbundle`.
"""

from ..tensorbundle import CheckpointError as CheckpointError
from .contents import EXTRA as EXTRA
from .contents import MODEL as MODEL
from .contents import OWN as OWN
from .contents import SLOTS as SLOTS
from .contents import TRAINING as TRAINING
from .contents import Checkpoint as Checkpoint
from .contents import has_slot_names as has_slot_names
from .loading import as_step as as_step
from .loading import latest_checkpoint as latest_checkpoint
from .loading import load_checkpoint as load_checkpoint
from .loading import load_silently as load_silently
from .loading import prefix_of as prefix_of
from .saving import NAMINGS as NAMINGS
from .saving import as_json as as_json
from .saving import as_weight as as_weight
from .saving import check_describable as check_describable
from .saving import save_checkpoint as save_checkpoint
