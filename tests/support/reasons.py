"""Which reasons the parts of the program may give."""

from model.reasons import Reason

SCREENED = {
    Reason.EMPTY,
    Reason.NAN,
    Reason.FLAT_CELL,
    Reason.VOLUME,
    Reason.NEEDLE,
    Reason.TOO_CLOSE,
    Reason.ISOLATED,
}
RELAXED = {  # at the end of a relaxation, whether it ran or not
    Reason.CONVERGED,
    Reason.STEP_LIMIT,
    Reason.WALL_TIME,
    Reason.EARLY_STOPPED,
    Reason.NOT_PROMISING,
    Reason.VOLUME_RUNAWAY,
    Reason.ENERGY_RUNAWAY,
    Reason.FUSED_ATOMS,
    Reason.NAN,
    Reason.NO_ATOMS,
    Reason.NOT_STARTED,
}
