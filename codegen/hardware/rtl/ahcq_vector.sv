// The vector unit: its sequencer, the lanes, and the memories of numbers and of logits.
module ahcq_vector
  import ahcq_isa_pkg::*, ahcq_vector_pkg::*;
#(
  parameter int unsigned Dim = 4,
  parameter int unsigned Lanes = 2,
  parameter int unsigned VecDepth = 16,
  parameter int unsigned LgtDepth = 16,
  parameter int unsigned StatDepth = 16
) (
  input  logic                                    clk_i,
  input  logic                                    rst_ni,
  input  logic                                    start_valid_i,
  input  logic [255:0]                            start_instr_i,
  output logic                                    start_ready_o,
  output logic                                    give_valid_o,
  output logic [3:0]                              give_mask_o,
  input  logic                                    give_ready_i,
  output logic                                    busy_o,
  output logic                                    active_o,      // something moves
  output logic                                    acc_read_o,
  input  logic                                    acc_ready_i,
  output logic [15:0]                             acc_addr_o,
  input  logic [Dim-1:0][31:0]                    acc_data_i,
  input  logic                                    encode_we_i,   // LOAD writes
  input  logic                                    vec_we_i,
  input  logic [15:0]                             write_word_i,
  input  logic [4:0]                              write_part_i,
  input  logic [63:0]                             write_data_i,
  output logic                                    vec_busy_o,    // LOAD must not write `vec`
  input  logic                                    store_re_i,    // STORE reads `vec`
  output logic                                    store_ready_o,
  input  logic [$clog2(VecDepth*(Dim/Lanes))-1:0] store_addr_i,
  output logic [Lanes-1:0][31:0]                  vec_data_o,
  output logic                                    code_valid_o,  // to `act` or `out`
  output slot_t                                   code_slot_o,
  output logic [Lanes-1:0][CodeBits-1:0]          code_o
);
  localparam int unsigned Subs = Dim / Lanes;
  localparam int unsigned LaneChunks = Lanes / 2;
  localparam int unsigned VecWords = VecDepth * Subs;
  localparam int unsigned LgtWords = LgtDepth * Subs;

  logic lanes_busy, rows_ready, slot_valid, number_valid;
  slot_t slot, number_slot;
  logic reads_vec;
  logic [Lanes-1:0][31:0] number;
  logic [19:0] vec_read_addr, lgt_read_addr, number_addr;
  logic [Lanes-1:0][LogitBits-1:0] lgt_data, logits;
  ahcq_vector_seq #(
    .Dim  (Dim),
    .Lanes(Lanes)
  ) u_vector_seq (
    .clk_i,
    .rst_ni,
    .start_valid_i,
    .start_instr_i,
    .start_ready_o,
    .give_valid_o,
    .give_mask_o,
    .give_ready_i,
    .busy_o,
    .lanes_busy_i(lanes_busy),
    .rows_ready_i(rows_ready),
    .acc_ready_i,
    .acc_read_o,
    .valid_o     (slot_valid),
    .slot_o      (slot),
    .acc_addr_o,
    .vec_addr_o  (vec_read_addr),
    .lgt_addr_o  (lgt_read_addr)
  );
  ahcq_lanes #(
    .Dim      (Dim),
    .Lanes    (Lanes),
    .StatDepth(StatDepth)
  ) u_lanes (
    .clk_i,
    .rst_ni,
    .valid_i       (slot_valid),
    .slot_i        (slot),
    .busy_o        (lanes_busy),
    .rows_ready_o  (rows_ready),
    .acc_data_i,
    .vec_data_i    (vec_data_o),
    .lgt_data_i    (lgt_data),
    .encode_we_i,
    .encode_waddr_i(write_word_i[4:0]),
    .encode_wdata_i(write_data_i),
    .number_valid_o(number_valid),
    .number_slot_o (number_slot),
    .number_o      (number),
    .code_valid_o,
    .code_slot_o,
    .code_o
  );
  assign vec_busy_o = number_valid && number_slot.memory == MemVec;
  assign active_o = slot_valid || lanes_busy;
  assign store_ready_o = !reads_vec;
  assign number_addr = (20'(number_slot.dst) << $clog2(Subs)) + 20'(number_slot.sub);

  assign reads_vec = slot_valid && (slot.kind != Compute || slot.row_addend);
  logic [19:0] load_vec_addr;
  assign load_vec_addr = (20'(write_word_i) << $clog2(Subs)) + 20'(write_part_i) / 20'(LaneChunks);
  ahcq_ram #(
    .Width (32 * Lanes),
    .Depth (VecWords),
    .Groups(LaneChunks)
  ) u_vec (
    .clk_i,
    .we_i(vec_busy_o ? '1 : vec_we_i ?
             LaneChunks'(1) << (write_part_i % 5'(LaneChunks)) : '0),
    .waddr_i(vec_busy_o ? number_addr[$clog2(VecWords)-1:0] : load_vec_addr[$clog2(VecWords)-1:0]),
    .wdata_i(vec_busy_o ? number : {LaneChunks{write_data_i}}),
    .re_i   (reads_vec || store_re_i),
    .raddr_i(reads_vec ? vec_read_addr[$clog2(VecWords)-1:0] : store_addr_i),
    .rdata_o(vec_data_o)
  );
  for (genvar l = 0; l < Lanes; l++) begin : gen_logit
    assign logits[l] = number[l][LogitBits-1:0];
  end
  ahcq_ram #(
    .Width(LogitBits * Lanes),
    .Depth(LgtWords)
  ) u_lgt (
    .clk_i,
    .we_i   (number_valid && number_slot.memory == MemLgt),
    .waddr_i(number_addr[$clog2(LgtWords)-1:0]),
    .wdata_i(logits),
    .re_i   (slot_valid),
    .raddr_i(lgt_read_addr[$clog2(LgtWords)-1:0]),
    .rdata_o(lgt_data)
  );
endmodule
