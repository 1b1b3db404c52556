# Constraints of the kernel @kernel@ on @title@; the Makefile has them read before opt_design.
# Clock and reset are constrained by the platform.

# HBM is reached from SLR0: what meets its ports stays there, the rest goes where there is room.
set_property USER_SLR_ASSIGNMENT SLR0 [get_cells -quiet -hierarchical -filter {REF_NAME =~ heddle_channel* || ORIG_REF_NAME =~ heddle_channel*}]
