// The vector unit: its sequencer, the lanes, and the memories of numbers and of logits.
module ahcq_vector
  import ahcq_isa_pkg::*, ahcq_vector_pkg::*;
#(
  parameter int unsigned Dim = 4,
  parameter int unsigned Lanes = 2,
  parameter int unsigned BusChunks = 1,
  parameter int unsigned VecDepth = 16,
  parameter int unsigned LgtDepth = 16,
  parameter int unsigned StatDepth = 16
) (
  input  logic                                    clk_i,
  input  logic                                    rst_ni,
  input  logic                                    start_i,
  input  logic [255:0]                            start_instr_i,
  output logic                                    ready_o,
  output logic                                    give_valid_o,
  output logic [3:0]                              give_mask_o,
  input  logic                                    give_ready_i,
  output logic                                    busy_o,
  output logic                                    active_o,      // something moves
  output logic                                    acc_read_o,
  input  logic                                    acc_ready_i,
  output logic [15:0]                             acc_addr_o,
  input  logic [Dim-1:0][31:0]                    acc_data_i,
  input  write_t                                  write_i,       // by LOAD
  input  logic [64*BusChunks-1:0]                 write_data_i,
  output logic                                    vec_busy_o,    // LOAD must not write `vec`
  input  logic                                    store_re_i,    // STORE reads `vec`
  output logic                                    store_ready_o,
  input  logic [$clog2(VecDepth*(Dim/Lanes))-1:0] store_addr_i,
  output logic [Lanes-1:0][31:0]                  vec_data_o,
  output logic                                    act_valid_o,   // codes are there
  output logic                                    out_valid_o,
  output slot_t                                   code_slot_o,
  output logic [Lanes-1:0][CodeBits-1:0]          code_o
);
  localparam int unsigned Subs = Dim / Lanes;
  localparam int unsigned LaneChunks = Lanes / 2;
  localparam int unsigned LaneBeats = LaneChunks / BusChunks;
  localparam int unsigned VecWords = VecDepth * Subs;
  localparam int unsigned LgtWords = LgtDepth * Subs;

  logic lanes_busy, slot_valid, lgt_valid;
  slot_t slot, number_slot;
  logic [Lanes-1:0][31:0] number;
  logic [19:0] vec_read_addr, lgt_read_addr, number_addr;
  logic [Lanes-1:0][LogitBits-1:0] lgt_data;

  // Three cycles from a slot to its words: accumulators are read at once, then picked; the addresses of `vec` and `lgt` are
  // registered first. Nothing but a register stands behind a memory.
  logic [2:1] valid_q;
  logic reads_vec_1_q;
  slot_t slot_1_q, slot_2_q;
  logic [19:0] vec_at_1_q;
  logic [Lanes-1:0][31:0] acc_3_q, vec_3_q;
  logic [Lanes-1:0][LogitBits-1:0] lgt_3_q;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      valid_q <= '0;
      reads_vec_1_q <= 1'b0;
    end else begin
      valid_q <= {valid_q[1], slot_valid};
      reads_vec_1_q <= slot_valid && (slot.kind != Compute || slot.row_addend);
    end
  end
  always_ff @(posedge clk_i) begin
    slot_1_q <= slot;
    slot_2_q <= slot_1_q;
    vec_at_1_q <= vec_read_addr;
    acc_3_q <= acc_data_i[32'(slot_2_q.sub)*Lanes+:Lanes];
    vec_3_q <= vec_data_o;
    lgt_3_q <= lgt_data;
  end
  ahcq_vector_seq #(
    .Dim  (Dim),
    .Lanes(Lanes)
  ) u_vector_seq (
    .clk_i,
    .rst_ni,
    .start_i,
    .start_instr_i,
    .ready_o,
    .give_valid_o,
    .give_mask_o,
    .give_ready_i,
    .busy_o,
    .lanes_busy_i(lanes_busy || valid_q != '0),
    .acc_ready_i,
    .acc_read_o,
    .valid_o     (slot_valid),
    .slot_o      (slot),
    .acc_addr_o,
    .vec_addr_o  (vec_read_addr),
    .lgt_addr_o  (lgt_read_addr)
  );
  // What is written is registered: it comes from afar.
  logic encode_we_q;
  logic [4:0] encode_waddr_q;
  logic [63:0] encode_wdata_q;
  logic [19:0] load_vec_addr;
  logic [LaneChunks-1:0] load_chunks, vec_we_q;
  logic [$clog2(VecWords)-1:0] vec_waddr_q;
  logic [32*Lanes-1:0] vec_wdata_q;
  assign load_chunks = LaneChunks'((1 << BusChunks) - 1) << ((write_i.part % 5'(LaneBeats)) * 5'(BusChunks));
  assign load_vec_addr = (20'(write_i.word) << $clog2(Subs)) + 20'(write_i.part) / 20'(LaneBeats);
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      encode_we_q <= 1'b0;
      vec_we_q <= '0;
    end else begin
      encode_we_q <= write_i.encode;
      vec_we_q <= vec_busy_o ? '1 : write_i.vec ? load_chunks : '0;
    end
  end
  always_ff @(posedge clk_i) begin
    encode_waddr_q <= write_i.word[4:0];
    encode_wdata_q <= write_data_i[63:0];
    vec_waddr_q <= vec_busy_o ? number_addr[$clog2(VecWords)-1:0] : load_vec_addr[$clog2(VecWords)-1:0];
    vec_wdata_q <= vec_busy_o ? number : {LaneBeats{write_data_i}};
  end
  ahcq_lanes #(
    .Lanes    (Lanes),
    .StatDepth(StatDepth)
  ) u_lanes (
    .clk_i,
    .rst_ni,
    .valid_i       (valid_q[2]),
    .slot_i        (slot_2_q),
    .busy_o        (lanes_busy),
    .acc_data_i    (acc_3_q),
    .vec_data_i    (vec_3_q),
    .lgt_data_i    (lgt_3_q),
    .encode_we_i   (encode_we_q),
    .encode_waddr_i(encode_waddr_q),
    .encode_wdata_i(encode_wdata_q),
    .vec_valid_o   (vec_busy_o),
    .lgt_valid_o   (lgt_valid),
    .number_slot_o (number_slot),
    .number_o      (number),
    .act_valid_o,
    .out_valid_o,
    .code_slot_o,
    .code_o
  );
  assign active_o = slot_valid || valid_q != '0 || lanes_busy;
  assign store_ready_o = !reads_vec_1_q;
  assign number_addr = (20'(number_slot.dst) << $clog2(Subs)) + 20'(number_slot.sub);

  ahcq_ram #(
    .Width (32 * Lanes),
    .Depth (VecWords),
    .Groups(LaneChunks)
  ) u_vec (
    .clk_i,
    .we_i   (vec_we_q),
    .waddr_i(vec_waddr_q),
    .wdata_i(vec_wdata_q),
    .re_i   (reads_vec_1_q || store_re_i),
    .raddr_i(reads_vec_1_q ? vec_at_1_q[$clog2(VecWords)-1:0] : store_addr_i),
    .rdata_o(vec_data_o)
  );

  // Each lane has its own memory of logits, with its own copy of the addresses.
  localparam int unsigned LgtAddrWidth = $clog2(LgtWords);
  for (genvar l = 0; l < Lanes; l++) begin : gen_lane
    logic we_q;
    logic [LgtAddrWidth-1:0] waddr_q, raddr_q;
    logic [LogitBits-1:0] logit_q;

    ahcq_copy #(
      .Width(1 + 2 * LgtAddrWidth)
    ) u_copy (
      .clk_i,
      .data_i({lgt_valid, number_addr[LgtAddrWidth-1:0], lgt_read_addr[LgtAddrWidth-1:0]}),
      .data_o({we_q, waddr_q, raddr_q})
    );
    always_ff @(posedge clk_i) logit_q <= number[l][LogitBits-1:0];
    ahcq_ram #(
      .Width(LogitBits),
      .Depth(LgtWords)
    ) u_lgt (
      .clk_i,
      .we_i   (we_q),
      .waddr_i(waddr_q),
      .wdata_i(logit_q),
      .re_i   (valid_q[1]),
      .raddr_i(raddr_q),
      .rdata_o(lgt_data[l])
    );
  end
endmodule
