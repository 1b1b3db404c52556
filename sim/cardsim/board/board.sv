// SPDX-License-Identifier: Apache-2.0
// The pins of a board by names that C++ can have.
module heddle_board_bench (
    input logic clk, input logic rst, input logic rx, output logic tx,
    output logic cke, output logic cs_n, output logic ras_n, output logic cas_n, output logic we_n,
    output logic [1:0] ba, output logic [12:0] a, output logic [1:0] dqm,
    output logic [15:0] dq_o, output logic dq_oe, input logic [15:0] dq_i
);
    heddle_board board (
        .clk(clk), .rst(rst), .rx(rx), .tx(tx), .sdram__cke(cke), .sdram__cs_n(cs_n), .sdram__ras_n(ras_n), .sdram__cas_n(cas_n),
        .sdram__we_n(we_n), .sdram__ba(ba), .sdram__a(a), .sdram__dqm(dqm), .sdram__dq_o(dq_o), .sdram__dq_oe(dq_oe), .sdram__dq_i(dq_i));
endmodule
