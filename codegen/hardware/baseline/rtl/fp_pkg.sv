// Floating-point words of 32 bits: 1 sign, 8 exponent, 23 fraction.
package fp_pkg;
  localparam int unsigned MultiplyStages = 5;
  localparam int unsigned MultiplyBf16Stages = 2;
  localparam int unsigned AddStages = 8;
  localparam int unsigned ExponentBits = 10;  // signed, wide enough for sums of exponents

  localparam logic [31:0] QuietNan = 32'h7fc00000;

  // What is known of a result before its fraction.
  typedef struct packed {
    logic sign;
    logic zero;
    logic infinite;
    logic nan;
  } kind_t;

  function automatic logic is_zero(logic [7:0] exponent);
    return exponent == '0;  // subnormal numbers count as zero
  endfunction

  function automatic logic is_nan(logic [7:0] exponent, logic some_fraction);
    return exponent == '1 && some_fraction;
  endfunction

  function automatic logic is_infinite(logic [7:0] exponent, logic some_fraction);
    return exponent == '1 && !some_fraction;
  endfunction

  // Kind of a product; of each factor its sign and exponent, and whether its fraction is not 0.
  function automatic kind_t product_kind(logic [8:0] a, logic [8:0] b, logic a_fraction, logic b_fraction);
    kind_t kind;
    logic a_zero, b_zero, a_infinite, b_infinite;
    a_zero = is_zero(a[7:0]);
    b_zero = is_zero(b[7:0]);
    a_infinite = is_infinite(a[7:0], a_fraction);
    b_infinite = is_infinite(b[7:0], b_fraction);
    kind.sign = a[8] ^ b[8];
    kind.zero = a_zero || b_zero;
    kind.infinite = a_infinite || b_infinite;
    kind.nan = is_nan(a[7:0], a_fraction) || is_nan(b[7:0], b_fraction) || (a_infinite && b_zero)
        || (a_zero && b_infinite);
    return kind;
  endfunction

  // The word of a rounded number: below the smallest normal one it is zero, above the largest it is infinite.
  function automatic logic [31:0] pack(kind_t kind, logic signed [ExponentBits-1:0] exponent, logic [22:0] fraction);
    if (kind.nan) return QuietNan;
    if (kind.infinite) return {kind.sign, 8'hff, 23'b0};
    if (kind.zero || exponent <= 0) return {kind.sign, 31'b0};
    if (exponent >= 255) return {kind.sign, 8'hff, 23'b0};
    return {kind.sign, exponent[7:0], fraction};
  endfunction
endpackage
