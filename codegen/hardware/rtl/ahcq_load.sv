// The LOAD unit: asks for bursts as fast as the bus takes them, aligns the answers and writes them beat by beat; entries of
// tables chunk by chunk.
module ahcq_load
  import ahcq_isa_pkg::*, ahcq_vector_pkg::*;
#(
  parameter int unsigned Dim = 4,
  parameter int unsigned BusChunks = 1
) (
  input  logic         clk_i,
  input  logic         rst_ni,
  input  logic         stop_i,
  input  logic         start_i,
  input  logic [255:0] start_instr_i,
  output logic         ready_o,
  output logic         give_valid_o,
  output logic [3:0]   give_mask_o,
  input  logic         give_ready_i,
  output logic         busy_o,
  output logic [2:0]   chunks_o,       // have been loaded in this cycle
  output logic         quiet_o,
  output logic         ar_valid_o,
  input  logic         ar_ready_i,
  output logic [31:0]  ar_addr_o,
  output logic [7:0]   ar_len_o,
  input  logic         r_valid_i,
  output logic         r_ready_o,
  input  logic [64*BusChunks-1:0] r_data_i,
  input  logic         r_last_i,
  input  logic         write_ready_i,  // true where nothing is written
  output write_t       write_o,
  output logic [64*BusChunks-1:0] write_data_o
);
  // Words in a chunk (of a bus that is no wider), or beats in a word.
  localparam int unsigned CodeWidth = 4 * Dim;
  localparam int unsigned WordsInChunk = CodeWidth < 64 ? 64 / CodeWidth : 1;
  localparam int unsigned CodeBeats = CodeWidth > 64 ? CodeWidth / 64 / BusChunks : 1;
  localparam int unsigned VecBeats = Dim / 2 / BusChunks;
  localparam int unsigned Wide = $clog2(BusChunks);
  localparam int unsigned BusWidth = 64 * BusChunks;

  load_t fields, instr_q;
  logic active_q, done_q, burst_busy, burst_taken;
  logic [15:0] row_word_q, word_q;
  logic [4:0] part_q, parts;
  logic [Wide:0] offset_q, next_offset;  // of the row's first byte in its beat, in units of 4 bytes
  logic fill_q;
  logic [BusWidth-33:0] held_q;
  logic [7:0] flying_q;
  logic [1:0] sub_q;
  logic is_code_q, is_table_q, write, write_last, free, held, step, take, last_sub, last_part, last_chunk, last_row, ends;
  logic beat_ends;

  logic is_table;
  assign fields = start_instr_i;
  assign is_table = fields.memory == 3'(MemDecode) || fields.memory == 3'(MemEncode);
  assign ready_o = !busy_o;

  ahcq_bursts #(
    .BusChunks(BusChunks)
  ) u_bursts (
    .clk_i,
    .rst_ni,
    .start_i,
    .address_i(instr_q.address),
    .stride_i (instr_q.stride),
    .rows_i   (instr_q.rows),
    .length_i (instr_q.length),
    .stop_i   (stop_i || flying_q[7]),
    .valid_o  (ar_valid_o),
    .ready_i  (ar_ready_i),
    .address_o(ar_addr_o),
    .beats_o  (ar_len_o),
    .busy_o   (burst_busy)
  );
  assign burst_taken = ar_valid_o && ar_ready_i;
  assign quiet_o = flying_q == '0 && !ar_valid_o;

  // A row that starts in the middle of a beat is one beat longer; its first beat only fills what is held.
  memory_e memory;
  assign memory = memory_e'({1'b0, instr_q.memory});
  assign parts = instr_q.memory == 3'(MemVec) ? 5'(VecBeats - 1) : is_code_q ? 5'(CodeBeats - 1) : 5'd0;
  assign last_sub = !is_code_q || sub_q == 2'(WordsInChunk - 1);
  assign last_part = part_q == parts;
  ahcq_count u_chunk (
    .clk_i,
    .load_i (start_i),
    .count_i(is_table ? fields.length : fields.length >> Wide),
    .step_i (take),
    .value_o(),
    .first_o(),
    .last_o (last_chunk)
  );
  ahcq_count u_row (
    .clk_i,
    .load_i (start_i),
    .count_i(fields.rows),
    .step_i (take && last_chunk),
    .value_o(),
    .first_o(),
    .last_o (last_row)
  );
  assign write = active_q && r_valid_i && !fill_q;
  assign step = write && free;
  assign take = step && last_sub;
  assign ends = take && last_chunk && last_row;
  assign beat_ends = BusChunks > 1 && is_table_q ? sub_q == 2'(BusChunks - 1) || last_chunk : last_sub;
  assign r_ready_o = active_q ? fill_q || (free && beat_ends) : 1'b1;
  assign chunks_o = !take ? 3'd0 : is_table_q ? 3'd1 : 3'(BusChunks);

  logic [BusWidth-1:0] aligned;
  always_comb begin
    aligned = r_data_i;
    for (int unsigned i = 1; i < 2 * BusChunks; i++) begin
      if (offset_q == (Wide + 1)'(i)) aligned = BusWidth'({r_data_i, held_q} >> (32 * (i - 1)));
    end
  end
  assign next_offset = offset_q + instr_q.stride[2+Wide:2];

  // What is written waits for the scratchpad, so that no beat at the bus does.
  write_t next, oldest;
  logic [BusWidth-1:0] data;
  if (BusChunks > 1) begin : gen_wide
    assign data = is_table_q ? aligned >> (64 * 32'(sub_q)) : aligned;
  end else begin : gen_chunk
    assign data = WordsInChunk == 1 || !is_code_q ? aligned : aligned >> (7'(sub_q) * 7'(CodeWidth % 64));
  end
  always_comb begin
    next.act = memory == MemAct;
    next.wgt = memory == MemWgt;
    next.vec = memory == MemVec;
    next.decode = memory == MemDecode;
    next.encode = memory == MemEncode;
    next.word = word_q;
    next.part = part_q;
    write_o = oldest;
    if (!held) {write_o.act, write_o.wgt, write_o.vec, write_o.decode, write_o.encode} = '0;
  end
  ahcq_fifo #(
    .Width($bits(write_t) + BusWidth + 1),
    .Depth(2)
  ) u_writes (
    .clk_i,
    .rst_ni,
    .valid_i(write),
    .ready_o(free),
    .data_i ({ends, next, data}),
    .valid_o(held),
    .ready_i(write_ready_i),
    .data_o ({write_last, oldest, write_data_o})
  );

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      active_q <= 1'b0;
      done_q <= 1'b0;
      flying_q <= '0;
      fill_q <= 1'b0;
    end else begin
      if (start_i) active_q <= 1'b1;
      if (ends) active_q <= 1'b0;
      if (held && write_ready_i && write_last) done_q <= 1'b1;
      else if (give_valid_o && give_ready_i) done_q <= 1'b0;
      flying_q <= flying_q + 8'(burst_taken) - 8'(r_valid_i && r_ready_o && r_last_i);
      if (start_i) fill_q <= fields.address[2+Wide:2] != '0;
      else if (r_valid_i && fill_q) fill_q <= 1'b0;
      else if (take && last_chunk) fill_q <= next_offset != '0;
    end
  end

  always_ff @(posedge clk_i) begin
    if (start_i) begin
      instr_q <= start_instr_i;
      is_code_q <= fields.memory == 3'(MemAct) || fields.memory == 3'(MemWgt);
      is_table_q <= is_table;
      sub_q <= '0;
      part_q <= '0;
      row_word_q <= fields.sp;
      word_q <= fields.sp;
      offset_q <= fields.address[2+Wide:2];
    end
    if (r_valid_i && r_ready_o) held_q <= r_data_i[BusWidth-1:32];
    if (step) begin
      sub_q <= beat_ends ? '0 : sub_q + 1'b1;
      part_q <= !last_sub ? part_q : last_part ? '0 : part_q + 1'b1;
      if (!last_sub || last_part) word_q <= word_q + 1'b1;
    end
    if (take) begin
      if (last_chunk) begin
        row_word_q <= row_word_q + instr_q.sp_stride;
        word_q <= row_word_q + instr_q.sp_stride;
        offset_q <= next_offset;
      end
    end
  end

  assign give_valid_o = done_q;
  assign give_mask_o = instr_q.push;
  assign busy_o = active_q || held || done_q;
  // every burst of an instruction is asked for before its last chunk can arrive
  BurstsEnd_A : assert property (@(posedge clk_i) disable iff (!rst_ni) done_q |-> !burst_busy);
endmodule
