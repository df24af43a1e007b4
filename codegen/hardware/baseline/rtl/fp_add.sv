// Sum of two fp32 numbers, rounded to nearest even, subnormals flushed to zero: 8 stages.
module fp_add
  import fp_pkg::*;
(
  input  logic        clk_i,
  input  logic [31:0] a_i,
  input  logic [31:0] b_i,
  output logic [31:0] sum_o
);
  typedef logic signed [ExponentBits-1:0] exponent_t;

  // 1: which is the greater
  logic [31:0] a_q, b_q;
  logic [8:0] a_less_b, b_less_a, a_less_b_q, b_less_a_q;
  logic swap_q, nan_q, infinite_q, infinite_sign_q;
  logic a_infinite, b_infinite;
  assign a_less_b = {1'b0, a_i[30:23]} - {1'b0, b_i[30:23]};
  assign b_less_a = {1'b0, b_i[30:23]} - {1'b0, a_i[30:23]};
  assign a_infinite = is_infinite(a_i[30:23], a_i[22:0] != '0);
  assign b_infinite = is_infinite(b_i[30:23], b_i[22:0] != '0);
  always_ff @(posedge clk_i) begin
    a_q <= a_i;
    b_q <= b_i;
    a_less_b_q <= a_less_b;
    b_less_a_q <= b_less_a;
    swap_q <= a_i[30:0] < b_i[30:0];
    nan_q <= is_nan(a_i[30:23], a_i[22:0] != '0) || is_nan(b_i[30:23], b_i[22:0] != '0)
        || (a_infinite && b_infinite && a_i[31] != b_i[31]);
    infinite_q <= a_infinite || b_infinite;
    infinite_sign_q <= a_infinite ? a_i[31] : b_i[31];
  end

  // 2: the greater and the smaller, with their leading ones
  function automatic logic [23:0] significand(logic [30:0] word);
    return is_zero(word[30:23]) ? '0 : {1'b1, word[22:0]};
  endfunction

  kind_t kind_q[6];
  exponent_t exponent_q[6];
  logic [23:0] great_q[2], small_q;
  logic [7:0] distance_q;
  logic subtract_q[5];
  always_ff @(posedge clk_i) begin
    exponent_q[0] <= exponent_t'({1'b0, swap_q ? b_q[30:23] : a_q[30:23]});
    great_q[0] <= significand(swap_q ? b_q[30:0] : a_q[30:0]);
    small_q <= significand(swap_q ? a_q[30:0] : b_q[30:0]);
    distance_q <= swap_q ? b_less_a_q[7:0] : a_less_b_q[7:0];
    subtract_q[0] <= a_q[31] ^ b_q[31];
    kind_q[0] <= '{sign: infinite_q ? infinite_sign_q : swap_q ? b_q[31] : a_q[31], zero: 1'b0,
                   infinite: infinite_q, nan: nan_q};
  end

  // 3: the smaller one shifted to the place of the greater, with two bits more and whether any were lost
  logic [25:0] shifted[6];
  logic [26:0] aligned_q;
  logic lost[6];
  logic far;
  assign far = distance_q[7:5] != '0;
  assign shifted[5] = {small_q, 2'b0};
  assign lost[5] = 1'b0;
  for (genvar i = 0; i < 5; i++) begin : gen_align
    assign shifted[i] = distance_q[i] ? shifted[i+1] >> (1 << i) : shifted[i+1];
    assign lost[i] = lost[i+1] || (distance_q[i] && shifted[i+1][(1<<i)-1:0] != '0);
  end
  always_ff @(posedge clk_i) begin
    aligned_q <= far ? {26'b0, small_q[23]} : {shifted[0], lost[0]};
    great_q[1] <= great_q[0];
    exponent_q[1:4] <= exponent_q[0:3];
    kind_q[1:4] <= kind_q[0:3];
    subtract_q[1:4] <= subtract_q[0:3];
  end

  // 4: sum or difference, never negative
  logic [27:0] sum, sum_q[3];
  ahcq_add_sub #(
    .Width(28)
  ) u_add_sub (
    .a_i       ({1'b0, great_q[1], 3'b0}),
    .b_i       (28'(aligned_q)),
    .subtract_i(subtract_q[1]),
    .sum_o     (sum)
  );

  // 5, 6: the leading one to the left
  logic [4:0] zeros_5, zeros_q[2], zeros_6;
  logic [27:0] left_5[3], left_6[4];
  assign left_5[0] = sum_q[0];
  assign zeros_5[4] = left_5[0][27:12] == '0;
  assign left_5[1] = zeros_5[4] ? left_5[0] << 16 : left_5[0];
  assign zeros_5[3] = left_5[1][27:20] == '0;
  assign left_5[2] = zeros_5[3] ? left_5[1] << 8 : left_5[1];
  assign zeros_5[2:0] = '0;
  assign left_6[0] = sum_q[1];
  assign zeros_6[4:3] = zeros_q[0][4:3];
  for (genvar i = 0; i < 3; i++) begin : gen_normalise
    assign zeros_6[2-i] = left_6[i][27-:(4>>i)] == '0;
    assign left_6[i+1] = zeros_6[2-i] ? left_6[i] << (4 >> i) : left_6[i];
  end
  always_ff @(posedge clk_i) begin
    sum_q[0] <= sum;
    sum_q[1] <= left_5[2];
    zeros_q[0] <= zeros_5;
    sum_q[2] <= left_6[3];
    zeros_q[1] <= zeros_6;
  end

  // 7, 8: rounding, which may carry into the exponent
  logic [22:0] fraction_q, rounded_fraction;
  exponent_t rounded_exponent;
  logic round_up_q;
  always_ff @(posedge clk_i) begin
    fraction_q <= sum_q[2][26:4];
    round_up_q <= sum_q[2][3] && (sum_q[2][4] || sum_q[2][2:0] != '0);
    exponent_q[5] <= exponent_q[4] + exponent_t'(1) - exponent_t'({1'b0, zeros_q[1]});
    kind_q[5] <= kind_q[4];
    if (!sum_q[2][27]) begin  // of equal numbers the difference is +0
      kind_q[5].zero <= 1'b1;
      kind_q[5].sign <= kind_q[4].sign && !subtract_q[4];
    end
    sum_o <= pack(kind_q[5], rounded_exponent, rounded_fraction);
  end
  assign {rounded_exponent, rounded_fraction} = {exponent_q[5], fraction_q} + (ExponentBits+23)'(round_up_q);
endmodule
