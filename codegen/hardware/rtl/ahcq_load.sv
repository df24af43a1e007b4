// The LOAD unit: asks for bursts as fast as the bus takes them, aligns the answers and writes them chunk by chunk.
module ahcq_load
  import ahcq_isa_pkg::*;
#(
  parameter int unsigned Dim = 4
) (
  input  logic         clk_i,
  input  logic         rst_ni,
  input  logic         stop_i,
  input  logic         start_valid_i,
  input  logic [255:0] start_instr_i,
  output logic         start_ready_o,
  output logic         give_valid_o,
  output logic [3:0]   give_mask_o,
  input  logic         give_ready_i,
  output logic         busy_o,
  output logic         chunk_o,        // a chunk has been loaded
  output logic         quiet_o,
  output logic         ar_valid_o,
  input  logic         ar_ready_i,
  output logic [31:0]  ar_addr_o,
  output logic [7:0]   ar_len_o,
  input  logic         r_valid_i,
  output logic         r_ready_o,
  input  logic [63:0]  r_data_i,
  input  logic         r_last_i,
  output logic         write_valid_o,
  input  logic         write_ready_i,
  output memory_e      write_memory_o,
  output logic [15:0]  write_word_o,   // word of Dim elements; chunk of a table
  output logic [4:0]   write_part_o,   // chunk within the word
  output logic [63:0]  write_data_o
);
  // Words in a chunk, or chunks in a word.
  localparam int unsigned CodeWidth = 4 * Dim;
  localparam int unsigned WordsInChunk = CodeWidth < 64 ? 64 / CodeWidth : 1;
  localparam int unsigned CodeChunks = CodeWidth > 64 ? CodeWidth / 64 : 1;
  localparam int unsigned VecChunks = Dim / 2;

  load_t fields, instr_q;
  logic active_q, done_q, start, burst_busy, burst_taken;
  logic [11:0] row_q, chunk_q, last_row_q, last_chunk_q;
  logic [15:0] row_word_q, word_q;
  logic [4:0] part_q, parts;
  logic misaligned_q, primed_q;
  logic [31:0] held_q;
  logic [7:0] flying_q;
  logic [1:0] sub_q;
  logic is_code, step, take, last_sub, last_part, last_chunk, last_row;

  assign fields = start_instr_i;
  assign start_ready_o = !active_q && !done_q;
  assign start = start_valid_i && start_ready_o;

  ahcq_bursts u_bursts (
    .clk_i,
    .rst_ni,
    .start_i  (start),
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

  // A row that starts in the middle of a beat is one beat longer; its first beat only fills the held half.
  logic fill;
  assign fill = misaligned_q && !primed_q;
  assign is_code = instr_q.memory == 3'(MemAct) || instr_q.memory == 3'(MemWgt);
  assign parts = instr_q.memory == 3'(MemVec) ? 5'(VecChunks - 1) : is_code ? 5'(CodeChunks - 1) : 5'd0;
  assign last_sub = !is_code || sub_q == 2'(WordsInChunk - 1);
  assign last_part = part_q == parts;
  assign last_chunk = chunk_q == last_chunk_q;
  assign last_row = row_q == last_row_q;
  assign write_valid_o = active_q && r_valid_i && !fill;
  assign step = write_valid_o && write_ready_i;
  assign take = step && last_sub;
  assign r_ready_o = active_q ? fill || (write_ready_i && last_sub) : 1'b1;
  assign chunk_o = take;

  logic [63:0] chunk;
  assign chunk = misaligned_q ? {r_data_i[31:0], held_q} : r_data_i;
  assign write_data_o = WordsInChunk == 1 || !is_code ? chunk : chunk >> (7'(sub_q) * 7'(CodeWidth % 64));
  assign write_memory_o = memory_e'({1'b0, instr_q.memory});
  assign write_word_o = word_q;
  assign write_part_o = part_q;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      active_q <= 1'b0;
      done_q <= 1'b0;
      flying_q <= '0;
      primed_q <= 1'b0;
    end else begin
      if (start) active_q <= 1'b1;
      if (take && last_chunk && last_row) active_q <= 1'b0;
      if (take && last_chunk && last_row) done_q <= 1'b1;
      else if (give_valid_o && give_ready_i) done_q <= 1'b0;
      flying_q <= flying_q + 8'(burst_taken) - 8'(r_valid_i && r_ready_o && r_last_i);
      if (start) primed_q <= 1'b0;
      else if (r_valid_i && r_ready_o && fill) primed_q <= 1'b1;
      else if (take && last_chunk) primed_q <= 1'b0;
    end
  end

  always_ff @(posedge clk_i) begin
    if (start) begin
      instr_q <= start_instr_i;
      last_row_q <= fields.rows - 1'b1;
      last_chunk_q <= fields.length - 1'b1;
      row_q <= '0;
      chunk_q <= '0;
      sub_q <= '0;
      part_q <= '0;
      row_word_q <= fields.sp;
      word_q <= fields.sp;
      misaligned_q <= fields.address[2];
    end
    if (r_valid_i && r_ready_o) held_q <= r_data_i[63:32];
    if (step) begin
      sub_q <= last_sub ? '0 : sub_q + 1'b1;
      part_q <= !last_sub ? part_q : last_part ? '0 : part_q + 1'b1;
      if (!last_sub || last_part) word_q <= word_q + 1'b1;
    end
    if (take) begin
      chunk_q <= last_chunk ? '0 : chunk_q + 1'b1;
      if (last_chunk) begin
        row_q <= row_q + 1'b1;
        row_word_q <= row_word_q + instr_q.sp_stride;
        word_q <= row_word_q + instr_q.sp_stride;
        misaligned_q <= misaligned_q ^ instr_q.stride[2];
      end
    end
  end

  assign give_valid_o = done_q;
  assign give_mask_o = instr_q.push;
  assign busy_o = active_q || done_q;
  // every burst of an instruction is asked for before its last chunk can arrive
  BurstsEnd_A : assert property (@(posedge clk_i) disable iff (!rst_ni) done_q |-> !burst_busy);
endmodule
