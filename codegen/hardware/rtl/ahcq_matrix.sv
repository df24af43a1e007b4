// The matrix unit: its sequencers, the array and the accumulators.
module ahcq_matrix
  import ahcq_isa_pkg::*;
#(
  parameter int unsigned Dim = 4,
  parameter int unsigned ActDepth = 16,
  parameter int unsigned WgtDepth = 16,
  parameter int unsigned AccDepth = 16
) (
  input  logic                         clk_i,
  input  logic                         rst_ni,
  input  logic                         start_i,
  input  logic [255:0]                 start_instr_i,
  output logic                         ready_o,
  output logic                         give_valid_o,
  output logic [3:0]                   give_mask_o,
  input  logic                         give_ready_i,
  output logic                         busy_o,
  output logic                         feed_o,        // the array takes a row
  output logic                         act_re_o,
  output logic [$clog2(ActDepth)-1:0]  act_addr_o,
  input  logic [Dim-1:0][CodeBits-1:0] act_data_i,
  output logic                         wgt_re_o,
  output logic [$clog2(WgtDepth)-1:0]  wgt_addr_o,
  input  logic [Dim-1:0][CodeBits-1:0] wgt_data_i,
  input  logic                         decode_we_i,
  input  logic [4:0]                   decode_waddr_i,
  input  logic [1:0][OperandBits-1:0]  decode_wdata_i,
  input  logic                         read_i,        // of the accumulators
  output logic                         read_ready_o,
  input  logic [$clog2(AccDepth)-1:0]  read_addr_i,
  output logic [Dim-1:0][31:0]         read_data_o
);
  localparam int unsigned SumBits = OperandBits + WeightBits - 1 + $clog2(Dim);

  logic [Dim-1:0][CodeBits-1:0] codes;
  logic [1:0] table_select;
  logic swap, load_weights, transpose;
  logic [Dim-1:0][WeightBits-1:0] weights;
  logic [Dim-1:0][SumBits-1:0] sums;
  logic acc_coming, acc_coming_half, acc_valid, acc_accumulate, acc_last, acc_written;
  logic [$clog2(AccDepth)-1:0] acc_addr;
  ahcq_gemm #(
    .Dim     (Dim),
    .ActDepth(ActDepth),
    .WgtDepth(WgtDepth),
    .AccDepth(AccDepth)
  ) u_gemm (
    .clk_i,
    .rst_ni,
    .start_i,
    .start_instr_i,
    .ready_o,
    .give_valid_o,
    .give_mask_o,
    .give_ready_i,
    .busy_o,
    .feed_o,
    .act_re_o,
    .act_addr_o,
    .act_data_i,
    .wgt_re_o,
    .wgt_addr_o,
    .wgt_data_i,
    .codes_o          (codes),
    .table_o          (table_select),
    .swap_o           (swap),
    .weights_o        (weights),
    .load_o           (load_weights),
    .transpose_o      (transpose),
    .acc_coming_o     (acc_coming),
    .acc_coming_half_o(acc_coming_half),
    .acc_valid_o      (acc_valid),
    .acc_addr_o       (acc_addr),
    .acc_accumulate_o (acc_accumulate),
    .acc_last_o       (acc_last),
    .acc_last_i       (acc_written)
  );
  // What the decoders get is registered: it comes from afar.
  logic decode_we_q;
  logic [4:0] decode_waddr_q;
  logic [1:0][OperandBits-1:0] decode_wdata_q;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) decode_we_q <= 1'b0;
    else decode_we_q <= decode_we_i;
  end
  always_ff @(posedge clk_i) begin
    decode_waddr_q <= decode_waddr_i;
    decode_wdata_q <= decode_wdata_i;
  end
  ahcq_array #(
    .Dim(Dim)
  ) u_array (
    .clk_i,
    .decode_we_i   (decode_we_q),
    .decode_waddr_i(decode_waddr_q),
    .decode_wdata_i(decode_wdata_q),
    .codes_i       (codes),
    .table_i       (table_select),
    .swap_i        (swap),
    .weights_i     (weights),
    .load_i        (load_weights),
    .transpose_i   (transpose),
    .sums_o        (sums)
  );
  ahcq_acc #(
    .Dim    (Dim),
    .Depth  (AccDepth),
    .SumBits(SumBits)
  ) u_acc (
    .clk_i,
    .rst_ni,
    .coming_i     (acc_coming),
    .coming_half_i(acc_coming_half),
    .valid_i      (acc_valid),
    .addr_i       (acc_addr),
    .accumulate_i (acc_accumulate),
    .last_i       (acc_last),
    .sums_i       (sums),
    .last_o       (acc_written),
    .read_i,
    .read_ready_o,
    .read_addr_i,
    .read_data_o
  );
endmodule
