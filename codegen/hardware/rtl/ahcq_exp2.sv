// exp2_fixed of one lane: 2**-x for x >= 0 in units of 2**-10, by a cubic; in units of 2**-18, seven cycles later.
// Products and differences take turns.
module ahcq_exp2
  import ahcq_isa_pkg::*;
(
  input  logic                 clk_i,
  input  logic                 zero_i,   // the result is 0 (a masked key)
  input  logic [LogitBits-1:0] below_i,
  output logic [ExpBits:0]     exp_o
);
  localparam logic [17:0] C1 = 18'd181298;
  localparam logic [17:0] C2 = 18'd60597;
  localparam logic [17:0] C3 = 18'd10371;
  localparam int unsigned Delay = 6;

  logic [3:0][9:0] fraction_q;
  logic [Delay-1:0][4:0] whole_q;
  logic [Delay-1:0] zero_q;
  logic [17:0] inner1_q, inner3_q, inner5_q, poly2_q, poly4_q;
  logic [18:0] poly6_q;

  always_ff @(posedge clk_i) begin
    fraction_q <= {fraction_q[2:0], below_i[9:0]};
    whole_q <= {whole_q[Delay-2:0], below_i[LogitBits-1:10] > 8'd31 ? 5'd31 : below_i[14:10]};
    zero_q <= {zero_q[Delay-2:0], zero_i};
    inner1_q <= 18'((28'(C3) * 28'(below_i[9:0])) >> 10);
    poly2_q <= C2 - inner1_q;
    inner3_q <= 18'((28'(poly2_q) * 28'(fraction_q[1])) >> 10);
    poly4_q <= C1 - inner3_q;
    inner5_q <= 18'((28'(poly4_q) * 28'(fraction_q[3])) >> 10);
    poly6_q <= 19'd262144 - 19'(inner5_q);
    exp_o <= zero_q[Delay-1] ? '0 : poly6_q >> whole_q[Delay-1];
  end
endmodule
