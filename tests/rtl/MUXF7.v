// SPDX-License-Identifier: Apache-2.0
// Xilinx's multiplexer behind two LUTs (UG974).

module MUXF7 (input I0, I1, S, output O);
    assign O = S ? I1 : I0;
endmodule
