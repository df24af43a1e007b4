// Product of two fp32 numbers, rounded to nearest even, subnormals flushed to zero: 5 stages.
// The 24 x 24 bit product is made of 18 x 18, 18 x 6 and 6 x 6; `Dsps` says how many of these four take a DSP block.
module fp_multiply
  import fp_pkg::*;
#(
  parameter int unsigned Dsps = 4  // 2, 3 or 4
) (
  input  logic        clk_i,
  input  logic [31:0] a_i,
  input  logic [31:0] b_i,
  output logic [31:0] product_o
);
  typedef logic signed [ExponentBits-1:0] exponent_t;

  logic [23:0] a, b;
  kind_t kind_q[4];
  exponent_t exponent_q[4], rounded_exponent;
  logic [35:0] high_q;
  logic [23:0] cross_q;
  logic [41:0] upper_q;
  logic [29:0] low, low_q;
  logic [47:0] product_q;
  logic [23:0] fraction_q;
  logic [22:0] rounded_fraction;
  logic round_up_q;

  assign a = {1'b1, a_i[22:0]};
  assign b = {1'b1, b_i[22:0]};

  // 1: partial products
  always_ff @(posedge clk_i) begin
    kind_q[0] <= product_kind(a_i[31:23], b_i[31:23], a_i[22:0] != '0, b_i[22:0] != '0);
    exponent_q[0] <= exponent_t'({1'b0, a_i[30:23]}) + exponent_t'({1'b0, b_i[30:23]});
    high_q <= a[23:6] * b[23:6];
    cross_q <= a[23:6] * b[5:0];
  end
  if (Dsps == 2) begin : gen_tables
    logic [25:0] rows[3], rows_q[3];
    fp_rows #(
      .Width(24)
    ) u_rows (
      .number_i(b),
      .bits_i  (a[5:0]),
      .sum_o   (rows)
    );
    always_ff @(posedge clk_i) rows_q <= rows;
    assign low = 30'(rows_q[0]) + {2'b0, rows_q[1], 2'b0} + {rows_q[2], 4'b0};
  end else begin : gen_blocks
    logic [23:0] other_q;
    logic [11:0] corner, corner_q;
    if (Dsps == 3) begin : gen_corner_tables
      logic [7:0] rows[3];
      fp_rows #(
        .Width(6)
      ) u_rows (
        .number_i(b[5:0]),
        .bits_i  (a[5:0]),
        .sum_o   (rows)
      );
      assign corner = 12'(rows[0]) + {2'b0, rows[1], 2'b0} + {rows[2], 4'b0};
    end else begin : gen_corner_block
      assign corner = a[5:0] * b[5:0];
    end
    always_ff @(posedge clk_i) begin
      other_q <= a[5:0] * b[23:6];
      corner_q <= corner;
    end
    assign low = {other_q, 6'b0} + 30'(corner_q);
  end

  always_ff @(posedge clk_i) begin
    // 2, 3: their sum
    kind_q[1:3] <= kind_q[0:2];
    exponent_q[1] <= exponent_q[0] - exponent_t'(127);
    exponent_q[2] <= exponent_q[1];
    upper_q <= {high_q, 6'b0} + 42'(cross_q);
    low_q <= low;
    product_q <= {upper_q, 6'b0} + 48'(low_q);
    // 4: between 1 and 2
    exponent_q[3] <= exponent_q[2] + exponent_t'({1'b0, product_q[47]});
    fraction_q <= product_q[47] ? product_q[47:24] : product_q[46:23];
    round_up_q <= product_q[47] ? product_q[23] && (product_q[24] || product_q[22:0] != '0)
        : product_q[22] && (product_q[23] || product_q[21:0] != '0);
    // 5: rounding may carry into the exponent
    product_o <= pack(kind_q[3], rounded_exponent, rounded_fraction);
  end
  assign {rounded_exponent, rounded_fraction} = {exponent_q[3], fraction_q[22:0]}
      + (ExponentBits+23)'(round_up_q);
endmodule
