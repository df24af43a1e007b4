// exp2_fixed of one lane: 2**-x for x >= 0 in units of 2**-10, by a cubic; in units of 2**-18, four cycles later.
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

  logic [9:0] fraction_q[2];
  logic [4:0] whole_q[3];
  logic zero_q[3];
  logic [17:0] inner_q[3];
  logic [27:0] product[3];

  assign product[0] = 28'(C3) * 28'(below_i[9:0]);
  assign product[1] = 28'(18'(C2 - inner_q[0])) * 28'(fraction_q[0]);
  assign product[2] = 28'(18'(C1 - inner_q[1])) * 28'(fraction_q[1]);

  always_ff @(posedge clk_i) begin
    fraction_q[0] <= below_i[9:0];
    fraction_q[1] <= fraction_q[0];
    whole_q[0] <= below_i[LogitBits-1:10] > 8'd31 ? 5'd31 : below_i[14:10];
    zero_q[0] <= zero_i;
    for (int unsigned i = 1; i < 3; i++) begin
      whole_q[i] <= whole_q[i-1];
      zero_q[i] <= zero_q[i-1];
    end
    for (int unsigned i = 0; i < 3; i++) inner_q[i] <= product[i][27:10];
    exp_o <= zero_q[2] ? '0 : (19'd262144 - 19'(inner_q[2])) >> whole_q[2];
  end
endmodule
