// A lane: one multiply-add a cycle, for one column of the result. Everything comes from the lane before it, a cycle later:
// operands of rows, weights, addresses of sums, results. A weight word is for the lane at which its index is 0, a result
// is fetched from the lane at which its index is 0.
module fp_lane #(
  parameter bit          Bf16 = 1'b0,
  parameter int unsigned WordBits = Bf16 ? 16 : 32,
  parameter int unsigned Dsps = 4,
  parameter int unsigned Depth = 512,
  parameter int unsigned IndexBits = 6,
  parameter int unsigned RowBits = $clog2(Depth)
) (
  input  logic                 clk_i,
  input  logic                 start_i,       // the weight that arrived starts to work, with this operand
  input  logic [WordBits-1:0]  operand_i,
  input  logic [RowBits-1:0]   read_row_i,    // of the sum so far, two stages before the product is there
  input  logic                 clear_i,       // there is none: one stage before the product is there
  input  logic                 write_sum_i,
  input  logic                 write_result_i,
  input  logic [RowBits-1:0]   write_row_i,
  input  logic                 weight_valid_i,
  input  logic [IndexBits-1:0] weight_index_i,
  input  logic [WordBits-1:0]  weight_i,
  input  logic                 fetch_valid_i,
  input  logic [IndexBits-1:0] fetch_index_i,
  input  logic [RowBits-1:0]   fetch_row_i,
  input  logic [31:0]          result_i,      // a cycle after its fetch
  output logic                 start_o,
  output logic [WordBits-1:0]  operand_o,
  output logic [RowBits-1:0]   read_row_o,
  output logic                 clear_o,
  output logic                 write_sum_o,
  output logic                 write_result_o,
  output logic [RowBits-1:0]   write_row_o,
  output logic                 weight_valid_o,
  output logic [IndexBits-1:0] weight_index_o,
  output logic [WordBits-1:0]  weight_o,
  output logic                 fetch_valid_o,
  output logic [IndexBits-1:0] fetch_index_o,
  output logic [RowBits-1:0]   fetch_row_o,
  output logic [31:0]          result_o
);
  logic [WordBits-1:0] arriving_q, weight_q;
  logic [31:0] product, so_far, so_far_q, sum, result;
  logic fetch, fetched_q;

  if (Bf16) begin : gen_bf16
    fp_multiply_bf16 u_multiply (
      .clk_i,
      .a_i      (operand_o),
      .b_i      (weight_q),
      .product_o(product)
    );
  end else begin : gen_fp32
    fp_multiply #(
      .Dsps(Dsps)
    ) u_multiply (
      .clk_i,
      .a_i      (operand_o),
      .b_i      (weight_q),
      .product_o(product)
    );
  end
  ahcq_ram #(
    .Width(32),
    .Depth(Depth)
  ) u_sums (
    .clk_i,
    .we_i   (write_sum_o),
    .waddr_i(write_row_o),
    .wdata_i(sum),
    .re_i   (1'b1),
    .raddr_i(read_row_o),
    .rdata_o(so_far)
  );
  fp_add u_add (
    .clk_i,
    .a_i  (product),
    .b_i  (so_far_q),
    .sum_o(sum)
  );
  ahcq_ram #(
    .Width(32),
    .Depth(Depth)
  ) u_results (
    .clk_i,
    .we_i   (write_result_o),
    .waddr_i(write_row_o),
    .wdata_i(sum),
    .re_i   (fetch),
    .raddr_i(fetch_row_i),
    .rdata_o(result)
  );
  assign fetch = fetch_valid_i && fetch_index_i == '0;

  always_ff @(posedge clk_i) begin
    start_o <= start_i;
    operand_o <= operand_i;
    if (start_i) weight_q <= arriving_q;
    read_row_o <= read_row_i;
    clear_o <= clear_i;
    so_far_q <= clear_o ? '0 : so_far;
    write_sum_o <= write_sum_i;
    write_result_o <= write_result_i;
    write_row_o <= write_row_i;
    weight_valid_o <= weight_valid_i;
    weight_index_o <= weight_index_i - 1'b1;
    weight_o <= weight_i;
    if (weight_valid_i && weight_index_i == '0) arriving_q <= weight_i;
    fetch_valid_o <= fetch_valid_i;
    fetch_index_o <= fetch_index_i - 1'b1;
    fetch_row_o <= fetch_row_i;
    fetched_q <= fetch;
    result_o <= fetched_q ? result : result_i;
  end
endmodule
