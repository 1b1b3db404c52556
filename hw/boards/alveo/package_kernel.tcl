# Packages the Verilog in this folder as the Vitis kernel @kernel@ (for Vivado @vitis@):
#
#   vivado -mode batch -source package_kernel.tcl -tclargs @kernel@.xo
#
# Ports, registers and files are those of @kernel@ alone; kernel.xml says the same to v++ and to XRT.

set kernel @kernel@
set part @part@
set clock_hz @clock_hz@
set masters {@masters@}
set streams {@streams@}
# Name, byte offset, bits, and the port that a pointer is for.
set registers {
@registers@
}
set files {
@files@
}

set here [file dirname [file normalize [info script]]]
set xo [file normalize [expr {[llength $argv] > 0 ? [lindex $argv 0] : "$kernel.xo"}]]
set work [file join [pwd] _package_$kernel]
set ip [file join $work ip]
file delete -force $work $xo

create_project -force package [file join $work project] -part $part
foreach name $files {
    add_files -norecurse [file join $here $name]
}
set_property top $kernel [current_fileset]
update_compile_order -fileset sources_1
ipx::package_project -root_dir $ip -vendor heddle -library kernel -taxonomy /KernelIP -import_files -set_current false
ipx::unload_core [file join $ip component.xml]
ipx::edit_ip_in_project -upgrade true -name edit -directory $ip [file join $ip component.xml]
set core [ipx::current_core]
set_property core_revision 1 $core
foreach parameter [ipx::get_user_parameters] {
    ipx::remove_user_parameter [get_property NAME $parameter] $core
}

# Clock and reset: found by their names, unless a release of Vivado thinks otherwise.
foreach {name type} {ap_clk clock ap_rst_n reset} {
    if {[llength [ipx::get_bus_interfaces -quiet $name -of_objects $core]] == 0} {
        ipx::infer_bus_interface $name xilinx.com:signal:${type}_rtl:1.0 $core
    }
}
set frequency [ipx::add_bus_parameter -quiet FREQ_HZ [ipx::get_bus_interfaces ap_clk -of_objects $core]]
set_property value $clock_hz $frequency
set_property value_resolve_type user $frequency
foreach port [concat s_axi_control $masters $streams] {
    ipx::associate_bus_interfaces -busif $port -clock ap_clk $core
}
ipx::associate_bus_interfaces -clock ap_clk -reset ap_rst_n $core
# All bursts are INCR and of whole beats.
foreach port $masters {
    foreach name {HAS_BURST SUPPORTS_NARROW_BURST} {
        set parameter [ipx::add_bus_parameter -quiet $name [ipx::get_bus_interfaces $port -of_objects $core]]
        set_property value 0 $parameter
    }
}

set map [ipx::add_memory_map -quiet s_axi_control $core]
set block [ipx::add_address_block -quiet reg0 $map]
foreach entry $registers {
    lassign $entry name offset bits port
    set register [ipx::add_register -quiet $name $block]
    set_property address_offset $offset $register
    set_property size $bits $register
    if {$port ne ""} {
        set parameter [ipx::add_register_parameter -quiet ASSOCIATED_BUSIF $register]
        set_property value $port $parameter
    }
}
set_property slave_memory_map_ref s_axi_control [ipx::get_bus_interfaces s_axi_control -of_objects $core]

set_property sdx_kernel true $core
set_property sdx_kernel_type rtl $core
set_property supported_families {} $core
set_property auto_family_support_level level_2 $core
ipx::create_xgui_files $core
ipx::update_checksums $core
ipx::check_integrity -kernel $core
ipx::save_core $core
close_project -delete

package_xo -force -xo_path $xo -kernel_name $kernel -ip_directory $ip -kernel_xml [file join $here kernel.xml]
