// Rounding and saturation of a scaler: for any sum, any addend, a multiplier of 1 and any shift before or after it (one of
// them, by `First`), the number is that of SPEC 4. The inputs stand still, so that after eleven cycles the lane holds nothing
// but their result; what it holds on the way is asserted too, which makes the last step short.
module scaler
  import ahcq_isa_pkg::*, ahcq_vector_pkg::*;
#(
  parameter bit First = 1'b1
) (
  input logic clk_i
);
  // no initial values: any, and they stay
  logic signed [31:0] sum_q, bias_q;
  logic [4:0] pre_q;
  logic [5:0] shift_q;
  logic subtract_q;  // PROB: minus the row's maximum
  always_ff @(posedge clk_i) begin
    sum_q <= sum_q;
    bias_q <= bias_q;
    pre_q <= pre_q;
    shift_q <= shift_q;
    subtract_q <= subtract_q;
  end

  logic signed [31:0] number;
  logic signed [31:0] vec_5;
  scaler_control_t control;
  always_comb begin
    control = '0;
    control.pre_2 = pre_q;
    control.mult_3 = MantissaBits'(1);
    control.shift_3 = shift_q;
    control.addend_9 = subtract_q ? SubMax : AddVec;
    control.carry_10 = subtract_q;
  end
  ahcq_scaler u_scaler (
    .clk_i,
    .control_i  (control),
    .sum_2_i    (sum_q),
    .vec_2_i    (bias_q),
    .vec_5_o    (vec_5),
    .rel_h_6_i  ('0),
    .row_max_9_i(bias_q[LogitBits-1:0]),
    .real_12_i  (1'b1),
    .number_13_o(number)
  );

  // rs(x, n) = floor(x / 2**n + 1/2), as the addition of a half
  function automatic logic signed [63:0] rounded(logic signed [63:0] value, logic [5:0] count);
    return count == '0 ? value : (value + (64'sd1 <<< (count - 6'd1))) >>> count;
  endfunction
  logic signed [63:0] first, second, total;
  logic [31:0] want;
  always_comb begin
    first = rounded(64'(sum_q), 6'(pre_q));
    second = rounded(first, shift_q > 6'd55 ? 6'd55 : shift_q);
    total = subtract_q ? second - 64'(signed'(bias_q[LogitBits-1:0])) : second + 64'(bias_q);
    want = total[31:0];
    if (total > 64'sh7fffffff) want = 32'h7fffffff;
    if (total < -64'sh80000000) want = 32'h80000000;
  end

  logic [3:0] cycle_q = '0;
  always_ff @(posedge clk_i) begin
    if (cycle_q != '1) cycle_q <= cycle_q + 1'b1;
  end
  always_comb begin
    assume (First ? shift_q == '0 : pre_q == '0);
    assume (!subtract_q || (shift_q == '0 && pre_q == '0));  // as PROB has it
    if (cycle_q >= 4'd2) assert (64'(u_scaler.number_4_q) == first);
    if (cycle_q >= 4'd5) assert (64'(u_scaler.product_7_q) == first);
    if (cycle_q >= 4'd8) assert (64'(u_scaler.shifted_10_q >>> 1) + 64'(u_scaler.shifted_10_q[0]) == second);
    if (cycle_q >= 4'd9) assert (64'(u_scaler.total_11_q) == total);
    if (cycle_q >= 4'd11) assert (number == want);
  end
endmodule
