// SPDX-License-Identifier: Apache-2.0
// What the engine uses of Xilinx's DSP48E2 (UG579): (A or 0 + D or 0) * B, as INMODE says, added to
// C or PCIN, as OPMODE says.  One register each before the pre-adder, at B and at INMODE, one behind
// the multiplier, one behind the adder.

module DSP48E2 #(
    parameter AMULTSEL = "A", BMULTSEL = "B", USE_MULT = "MULTIPLY",
    parameter integer AREG = 1, ACASCREG = 1, BREG = 1, BCASCREG = 1, DREG = 1, ADREG = 1, MREG = 1,
    parameter integer PREG = 1, CREG = 1, INMODEREG = 1
) (
    input CLK,
    input signed [29:0] A, input signed [17:0] B, input signed [47:0] C, input signed [26:0] D,
    input signed [47:0] PCIN,
    input [3:0] ALUMODE, input [4:0] INMODE, input [8:0] OPMODE, input CARRYIN, input [2:0] CARRYINSEL,
    input CEA1, CEA2, CEAD, CEALUMODE, CEB1, CEB2, CEC, CECARRYIN, CECTRL, CED, CEINMODE, CEM, CEP,
    input RSTA, RSTALLCARRYIN, RSTALUMODE, RSTB, RSTC, RSTCTRL, RSTD, RSTINMODE, RSTM, RSTP,
    output signed [47:0] P, PCOUT
);
    reg signed [26:0] a, d;
    reg signed [17:0] b;
    reg signed [44:0] m;
    reg signed [47:0] p;
    reg [4:0] inmode;
    wire signed [26:0] ad = (inmode[1] ? 27'sd0 : a) + (inmode[2] ? d : 27'sd0);
    wire signed [47:0] z = OPMODE[6:4] == 3'b001 ? PCIN : C;
    assign P = p;
    assign PCOUT = p;

    always @(posedge CLK) begin
        if (CEA2) a <= A[26:0];
        if (CEB2) b <= B;
        if (CED) d <= D;
        if (CEINMODE) inmode <= INMODE;
        if (CEM) m <= ad * b;
        if (CEP) p <= 48'(m) + z;
    end

    // Anything else is not modelled.
    initial begin
        if (AMULTSEL != "AD" || BMULTSEL != "B" || AREG != 1 || BREG != 1 || DREG != 1 || ADREG != 0
            || MREG != 1 || PREG != 1 || ACASCREG != 1 || BCASCREG != 1 || CREG != 0 || INMODEREG != 1
            || USE_MULT != "MULTIPLY")
            $fatal(1, "DSP48E2: parameters");
    end
    always @(posedge CLK) begin
        if ((INMODE & 5'b11001) != 0 || ALUMODE != 0 || OPMODE[3:0] != 4'b0101 || OPMODE[8:7] != 0
            || (OPMODE[6:4] != 3'b001 && OPMODE[6:4] != 3'b011) || CARRYIN || CARRYINSEL != 0 || RSTA || RSTB || RSTD || RSTM || RSTP)
            $fatal(1, "DSP48E2: modes");
    end
endmodule
