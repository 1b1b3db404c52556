# SPDX-License-Identifier: Apache-2.0
"""A stand-in for a card, to test the bench by itself: on start it copies beats within every channel.

The command address is the number of beats to copy, from offset 0 to offset 64 KiB, in bursts of
four.  The pin ``events`` counts cycles.
"""

from rtl_gen.spec.config import CardConfig

_CHANNEL = """
    reg [1:0] state_{n}; reg [63:0] base_{n}; reg [31:0] left_{n}; reg [1:0] beat_{n}; reg [63:0]
    at_{n};
    reg [{high}:0] data_{n} [0:3];
    assign m_axi_hbm{n}_arvalid = state_{n} == 1 & !asked_{n};
    reg asked_{n}, addressed_{n};
    assign m_axi_hbm{n}_arid = 0; assign m_axi_hbm{n}_araddr = base_{n} + at_{n};
    assign m_axi_hbm{n}_arlen = 3; assign m_axi_hbm{n}_arsize = {size}; assign m_axi_hbm{n}_arburst = 1;
    assign m_axi_hbm{n}_rready = state_{n} == 1;
    assign m_axi_hbm{n}_awvalid = state_{n} == 2 & !addressed_{n};
    assign m_axi_hbm{n}_awid = 0; assign m_axi_hbm{n}_awaddr = base_{n} + at_{n} + 64'h10000;
    assign m_axi_hbm{n}_awlen = 3; assign m_axi_hbm{n}_awsize = {size}; assign m_axi_hbm{n}_awburst = 1;
    assign m_axi_hbm{n}_wvalid = state_{n} == 2 & addressed_{n}; assign m_axi_hbm{n}_wlast = beat_{n} == 3;
    assign m_axi_hbm{n}_wdata = data_{n}[beat_{n}]; assign m_axi_hbm{n}_wstrb = ~0;
    assign m_axi_hbm{n}_bready = state_{n} == 3;
    always @(posedge ap_clk) begin
        if (!ap_rst_n) begin
            state_{n} <= 0; asked_{n} <= 0; addressed_{n} <= 0; beat_{n} <= 0; at_{n} <= 0;
        end else case (state_{n})
            0: if (start) begin state_{n} <= 1; left_{n} <= count; at_{n} <= 0; end
            1: begin
                if (m_axi_hbm{n}_arvalid & m_axi_hbm{n}_arready) asked_{n} <= 1;
                if (m_axi_hbm{n}_rvalid) begin
                    data_{n}[beat_{n}] <= m_axi_hbm{n}_rdata; beat_{n} <= beat_{n} + 1;
                    if (m_axi_hbm{n}_rlast) begin state_{n} <= 2; asked_{n} <= 0; end
                end
            end
            2: begin
                if (m_axi_hbm{n}_awvalid & m_axi_hbm{n}_awready) addressed_{n} <= 1;
                if (m_axi_hbm{n}_wvalid & m_axi_hbm{n}_wready) begin
                    beat_{n} <= beat_{n} + 1;
                    if (beat_{n} == 3) begin state_{n} <= 3; addressed_{n} <= 0; end
                end
            end
            3: if (m_axi_hbm{n}_bvalid) begin
                at_{n} <= at_{n} + {burst}; left_{n} <= left_{n} - 4;
                state_{n} <= left_{n} <= 4 ? 0 : 1;
            end
        endcase
        if (addressed && address[11:3] == 9'h20 + {index}) begin
            if (address[2]) base_{n}[63:32] <= s_axi_control_wdata; else base_{n}[31:0] <= s_axi_control_wdata;
        end
    end
"""

_CARD = """
module copycard (input ap_clk, input ap_rst_n, output reg interrupt, output reg [63:0] events,
    input s_axi_control_awvalid, output s_axi_control_awready, input [11:0] s_axi_control_awaddr,
    input s_axi_control_wvalid, output s_axi_control_wready, input [31:0] s_axi_control_wdata,
    input [3:0] s_axi_control_wstrb, output reg s_axi_control_bvalid, input s_axi_control_bready,
    output [1:0] s_axi_control_bresp,
    input s_axi_control_arvalid, output s_axi_control_arready, input [11:0] s_axi_control_araddr,
    output reg s_axi_control_rvalid, input s_axi_control_rready, output reg [31:0] s_axi_control_rdata,
    output [1:0] s_axi_control_rresp{ports});
    wire addressed = s_axi_control_awvalid & s_axi_control_wvalid & !s_axi_control_bvalid;
    wire [11:0] address = s_axi_control_awaddr;
    assign s_axi_control_awready = addressed, s_axi_control_wready = addressed, s_axi_control_bresp = 0;
    assign s_axi_control_arready = !s_axi_control_rvalid, s_axi_control_rresp = 0;
    reg [31:0] count; reg start, running;
    always @(posedge ap_clk) events <= ap_rst_n ? events + 1 : 0;
    wire idle = {idle};
    always @(posedge ap_clk) begin
        start <= addressed & address == 0;
        if (addressed & address == 12'h10) count <= s_axi_control_wdata;
        if (addressed & address == 12'hC) interrupt <= 0;
        if (start) running <= 1;
        if (running & idle & !start) begin running <= 0; interrupt <= 1; end
        s_axi_control_bvalid <= addressed | s_axi_control_bvalid & !s_axi_control_bready;
        s_axi_control_rvalid <= s_axi_control_arvalid & !s_axi_control_rvalid | s_axi_control_rvalid & !s_axi_control_rready;
        s_axi_control_rdata <= s_axi_control_araddr == 12'hC ? interrupt : 0;
        if (!ap_rst_n) begin
            interrupt <= 0; start <= 0; running <= 0; s_axi_control_bvalid <= 0; s_axi_control_rvalid <= 0;
        end
    end
{channels}
endmodule
"""


def modules(config: CardConfig, events: bool) -> dict[str, str]:
    """Verilog of the stand-in, in the form of ``rtl_gen.emit.card``; it always has the pin."""
    numbers = [f"{index:02}" for index in range(config.channels)]
    bits = {"araddr": 64, "awaddr": 64, "arlen": 8, "awlen": 8, "arsize": 3, "awsize": 3, "arburst": 2,
            "awburst": 2, "rresp": 2, "bresp": 2, "rdata": 8 * config.beat_bytes,
            "wdata": 8 * config.beat_bytes, "wstrb": config.beat_bytes}
    into = ("arready", "rvalid", "rid", "rdata", "rresp", "rlast", "awready", "wready", "bvalid", "bid", "bresp")
    outof = ("arvalid", "arid", "araddr", "arlen", "arsize", "arburst", "rready", "awvalid", "awid", "awaddr",
             "awlen", "awsize", "awburst", "wvalid", "wdata", "wstrb", "wlast", "bready")
    ports = "".join(
        f",\n    {flow} [{bits.get(name, 1) - 1}:0] m_axi_hbm{n}_{name}"
        for n in numbers for flow, names in (("input", into), ("output", outof)) for name in names)
    return {"copycard": _CARD.format(
        ports=ports, idle=" & ".join(f"state_{n} == 0" for n in numbers),
        channels="".join(_CHANNEL.format(
            n=n, index=int(n), high=8 * config.beat_bytes - 1, burst=4 * config.beat_bytes,
            size=config.beat_bytes.bit_length() - 1) for n in numbers))}
