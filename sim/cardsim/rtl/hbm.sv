// SPDX-License-Identifier: Apache-2.0
// AXI4 port of one simulated HBM channel; the model is C++ (hbm.cpp).
module heddle_hbm #(parameter int INDEX = 0, parameter int BEAT = 16) (
    input logic clk, input logic rst_n,
    input logic arvalid, output logic arready, input logic arid, input logic [63:0] araddr,
    input logic [7:0] arlen, input logic [2:0] arsize, input logic [1:0] arburst,
    output logic rvalid, input logic rready, output logic rid, output logic [8*BEAT-1:0] rdata,
    output logic [1:0] rresp, output logic rlast,
    input logic awvalid, output logic awready, input logic awid, input logic [63:0] awaddr,
    input logic [7:0] awlen, input logic [2:0] awsize, input logic [1:0] awburst,
    input logic wvalid, output logic wready, input logic [8*BEAT-1:0] wdata, input logic [BEAT-1:0] wstrb,
    input logic wlast,
    output logic bvalid, input logic bready, output logic bid, output logic [1:0] bresp
);
    import "DPI-C" function int heddle_hbm_tick(
        input int index, input int beat_bytes, input int reset, input int flags,
        input longint araddr, input int ar, input longint awaddr, input int aw,
        input bit [8*BEAT-1:0] wdata, input longint wstrb, inout bit [8*BEAT-1:0] rdata);

    bit [8*BEAT-1:0] data;
    int answer;
    always_ff @(posedge clk) begin
        answer = heddle_hbm_tick(
            INDEX, BEAT, int'(!rst_n),
            int'({awid, arid, bready, wlast, wvalid, awvalid, rready, arvalid}),
            araddr, int'({arburst, arsize, arlen}), awaddr, int'({awburst, awsize, awlen}),
            wdata, longint'(wstrb), data);
        arready <= answer[0];
        rvalid <= answer[1];
        rlast <= answer[2];
        awready <= answer[3];
        wready <= answer[4];
        bvalid <= answer[5];
        rid <= answer[6];
        bid <= answer[7];
        rresp <= answer[9:8];
        bresp <= answer[11:10];
        rdata <= data;
    end
endmodule
