// One lane of the vector unit from a sum to a number: shift, multiply, shift, add, saturate. A rounding shift is a shift
// that keeps one bit more, and that bit added: rs(x, n) = (x >> n) + bit n - 1 of x. Names end in the stage, that is the
// cycles from the entry of the slot into the lanes, at which a signal belongs to that slot.
module ahcq_scaler
  import ahcq_isa_pkg::*, ahcq_vector_pkg::*;
(
  input  logic                    clk_i,
  input  scaler_control_t         control_i,
  input  logic signed [31:0]      sum_2_i,
  input  logic signed [31:0]      vec_2_i,
  output logic signed [31:0]      vec_5_o,
  input  logic signed [31:0]      rel_h_6_i,
  input  logic signed [LogitBits-1:0] row_max_9_i,
  input  logic                    real_12_i,  // LOGIT: the key exists
  output logic signed [31:0]      number_13_o
);
  localparam int unsigned ProductBits = 32 + MantissaBits;
  localparam int unsigned LowBits = 16;                 // of the number, in the partial products
  localparam int unsigned LowMantissa = MantissaBits / 2;
  localparam int unsigned WideBits = ProductBits + 2;
  localparam logic [5:0] MaxShift = 6'd55;

  logic signed [9:2][31:0] vec;
  logic [8:2][31:0] vec_q;
  assign vec = {vec_q, vec_2_i};
  always_ff @(posedge clk_i) vec_q <= vec[8:2];
  assign vec_5_o = vec[5];

  // 2, 3: shift before the multiplication; pick the multiplier
  logic signed [32:0] shifted_3_q;
  logic signed [31:0] number_4_q, keep_q;
  logic signed [MantissaBits-1:0] mult_4_q;
  logic [5:0] shift_4_q;
  always_ff @(posedge clk_i) begin
    shifted_3_q <= signed'({sum_2_i, 1'b0}) >>> control_i.pre_2;
    number_4_q <= shifted_3_q[32:1] + 32'(shifted_3_q[0]);
    if (control_i.set_mult_3) keep_q <= vec[3];
    mult_4_q <= control_i.scale_3 ? keep_q[MantissaBits-1:0] : control_i.mult_3;
    shift_4_q <= control_i.scale_3 ? keep_q[MantissaBits+:6] : control_i.shift_3;
  end

  // 4 to 6: multiply, by four partial products of which the outer two do not overlap
  logic signed [32-LowBits-1:0] number_high;
  logic signed [LowBits:0] number_low;
  logic signed [MantissaBits-LowMantissa-1:0] mult_high;
  logic signed [LowMantissa:0] mult_low;
  logic signed [ProductBits-LowBits-LowMantissa-1:0] high_5_q;
  logic [LowBits+LowMantissa-1:0] low_5_q;
  logic signed [32-LowBits+LowMantissa:0] high_low_5_q;
  logic signed [LowBits+MantissaBits-LowMantissa:0] low_high_5_q;
  logic [ProductBits-1:0] outer_6_q;
  logic signed [LowBits+MantissaBits+1:0] inner_6_q;
  logic signed [ProductBits-1:0] product_7_q;
  assign number_high = number_4_q[31:LowBits];
  assign number_low = {1'b0, number_4_q[LowBits-1:0]};
  assign mult_high = mult_4_q[MantissaBits-1:LowMantissa];
  assign mult_low = {1'b0, mult_4_q[LowMantissa-1:0]};
  always_ff @(posedge clk_i) begin
    high_5_q <= number_high * mult_high;
    low_5_q <= (LowBits + LowMantissa)'(number_low * mult_low);
    high_low_5_q <= number_high * mult_low;
    low_high_5_q <= number_low * mult_high;
    outer_6_q <= {high_5_q, low_5_q};
    inner_6_q <= ($bits(inner_6_q)'(high_low_5_q) <<< (LowBits - LowMantissa)) + $bits(inner_6_q)'(low_high_5_q);
    product_7_q <= signed'(outer_6_q) + (ProductBits'(inner_6_q) <<< LowMantissa);
  end

  // 6, 7: relative positions.  8, 9: shift, by eights and by ones
  logic signed [32:0] rel_7_q;
  logic signed [ProductBits:0] sum_8_q;
  logic signed [ProductBits+1:0] coarse_9_q, shifted_10_q;
  logic [8:5][5:0] shift_q;
  logic [2:0] shift_9_q;
  always_ff @(posedge clk_i) begin
    rel_7_q <= control_i.rel_6 ? 33'(signed'(vec[6])) + 33'(rel_h_6_i) : '0;
    sum_8_q <= (ProductBits + 1)'(product_7_q) + (ProductBits + 1)'(rel_7_q);
    shift_q <= {shift_q[7:5], shift_4_q > MaxShift ? MaxShift : shift_4_q};
    coarse_9_q <= signed'({sum_8_q, 1'b0}) >>> {shift_q[8][5:3], 3'b0};
    shift_9_q <= shift_q[8][2:0];
    shifted_10_q <= coarse_9_q >>> shift_9_q;
  end

  // 9, 10: add, the bit below with it.  A difference has no such bit and needs a carry
  logic signed [31:0] bias_q;
  logic signed [32:0] addend_10_q;
  logic signed [WideBits-1:0] total_11_q;
  always_ff @(posedge clk_i) begin
    if (control_i.set_bias_9) bias_q <= vec[9];
    unique case (control_i.addend_9)
      AddBias: addend_10_q <= 33'(bias_q);
      AddVec: addend_10_q <= 33'(signed'(vec[9]));
      SubMax: addend_10_q <= ~33'(row_max_9_i);
      default: addend_10_q <= '0;
    endcase
    total_11_q <= WideBits'(shifted_10_q >>> 1) + WideBits'(addend_10_q) +
        WideBits'({1'b0, control_i.carry_10 || shifted_10_q[0]});
  end

  // 11, 12: saturate
  logic signed [31:0] total_12_q;
  logic sign_12_q, fits_number_12_q, fits_logit_12_q;
  always_ff @(posedge clk_i) begin
    total_12_q <= total_11_q[31:0];
    sign_12_q <= total_11_q[WideBits-1];
    fits_number_12_q <= total_11_q[WideBits-1:31] == '0 || total_11_q[WideBits-1:31] == '1;
    fits_logit_12_q <= (total_11_q[WideBits-1:LogitBits-1] == '0 || total_11_q[WideBits-1:LogitBits-1] == '1) &&
        total_11_q[LogitBits-1:0] != Masked;
    if (control_i.logit_12) begin
      if (!real_12_i) number_13_o <= 32'(Masked);
      else if (!fits_logit_12_q) number_13_o <= sign_12_q ? -32'(LogitMax) : 32'(LogitMax);
      else number_13_o <= total_12_q;
    end else begin
      number_13_o <= fits_number_12_q ? total_12_q : {sign_12_q, {31{!sign_12_q}}};
    end
  end
endmodule
