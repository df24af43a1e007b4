// `ahcq_add_sub` on one carry chain of the ECP5: its tables negate as they add. Proved equal in `formal/`.
module ahcq_add_sub #(
  parameter int unsigned Width = 16
) (
  input  logic signed [Width-1:0] a_i,
  input  logic signed [Width-1:0] b_i,
  input  logic                    subtract_i,
  output logic signed [Width-1:0] sum_o
);
  localparam int unsigned Pairs = (Width + 2) / 2;  // one bit more, below: it makes the carry of a subtraction

  logic [2*Pairs-1:0] a, b, sum;
  logic [Pairs:0] carry;
  assign a = (2 * Pairs)'({a_i, subtract_i});
  assign b = (2 * Pairs)'({b_i, 1'b0});
  assign carry[0] = 1'b0;
  for (genvar i = 0; i < Pairs; i++) begin : gen_pair
    // A + (B ^ C); bit 0 makes the carry A
    CCU2C #(
      .INIT0    (i == 0 ? 16'h000a : 16'h96aa),
      .INIT1    (16'h96aa),
      .INJECT1_0("NO"),
      .INJECT1_1("NO")
    ) u_cell (
      .CIN (carry[i]),
      .A0  (a[2*i]),
      .B0  (b[2*i]),
      .C0  (i == 0 ? 1'b1 : subtract_i),
      .D0  (1'b1),
      .A1  (a[2*i+1]),
      .B1  (b[2*i+1]),
      .C1  (subtract_i),
      .D1  (1'b1),
      .S0  (sum[2*i]),
      .S1  (sum[2*i+1]),
      .COUT(carry[i+1])
    );
  end
  assign sum_o = sum[Width:1];
endmodule
