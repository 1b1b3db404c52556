# Constraints of the kernel @kernel@ on @title@; the Makefile has them read, as Tcl, before opt_design.
# Clock and reset are constrained by the platform.

# HBM is reached from SLR0, whose UltraRAM (320) and block RAM (672) hold the buffers of 20 channels of
# 64-byte beats at most (16 and 23 each): sixteen stay there, beside the shell, and the others are next to it.
for {set channel 0} {$channel < @channels@} {incr channel} {
    set cells [get_cells -quiet -hierarchical -filter "NAME =~ */channel_$channel"]
    if {[llength $cells]} {
        set_property USER_SLR_ASSIGNMENT [expr {$channel < 16 ? "SLR0" : "SLR1"}] $cells
    }
}
