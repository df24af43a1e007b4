// The accelerator: AXI4 master (64 bits, or BusChunks times as many) for instructions and data, AXI4-Lite slave for registers.
module ahcq_top
  import ahcq_isa_pkg::*, ahcq_vector_pkg::*;
#(
  parameter int unsigned Dim = 4,
  parameter int unsigned Lanes = 2,
  parameter int unsigned BusChunks = 1,
  parameter int unsigned ActDepth = 4096,
  parameter int unsigned WgtDepth = 2048,
  parameter int unsigned AccDepth = 1024,
  parameter int unsigned VecDepth = 512,
  parameter int unsigned OutDepth = 256,
  parameter int unsigned LgtDepth = 2048,
  parameter int unsigned StatDepth = 64,
  parameter int unsigned Hash = 0
) (
  input  logic        clk_i,
  input  logic        rst_ni,
  output logic        irq_o,

  output logic        m_arvalid_o,
  input  logic        m_arready_i,
  output logic        m_arid_o,
  output logic [31:0] m_araddr_o,
  output logic [7:0]  m_arlen_o,
  output logic [2:0]  m_arsize_o,
  output logic [1:0]  m_arburst_o,
  input  logic        m_rvalid_i,
  output logic        m_rready_o,
  input  logic        m_rid_i,
  input  logic [64*BusChunks-1:0] m_rdata_i,
  input  logic [1:0]  m_rresp_i,
  input  logic        m_rlast_i,
  output logic        m_awvalid_o,
  input  logic        m_awready_i,
  output logic [31:0] m_awaddr_o,
  output logic [7:0]  m_awlen_o,
  output logic [2:0]  m_awsize_o,
  output logic [1:0]  m_awburst_o,
  output logic        m_wvalid_o,
  input  logic        m_wready_i,
  output logic [64*BusChunks-1:0] m_wdata_o,
  output logic [8*BusChunks-1:0]  m_wstrb_o,
  output logic        m_wlast_o,
  input  logic        m_bvalid_i,
  output logic        m_bready_o,
  input  logic [1:0]  m_bresp_i,

  input  logic        s_awvalid_i,
  output logic        s_awready_o,
  input  logic [7:0]  s_awaddr_i,
  input  logic        s_wvalid_i,
  output logic        s_wready_o,
  input  logic [31:0] s_wdata_i,
  output logic        s_bvalid_o,
  input  logic        s_bready_i,
  output logic [1:0]  s_bresp_o,
  input  logic        s_arvalid_i,
  output logic        s_arready_o,
  input  logic [7:0]  s_araddr_i,
  output logic        s_rvalid_o,
  input  logic        s_rready_i,
  output logic [31:0] s_rdata_o,
  output logic [1:0]  s_rresp_o
);
  localparam int unsigned Subs = Dim / Lanes;
  localparam int unsigned CodeWidth = CodeBits * Dim;
  localparam bit IdLoad = 1'b0;

  if (Dim < 4 || Dim > 64 || (Dim & (Dim - 1)) != 0) begin : gen_bad_dim
    $error("Dim must be a power of two from 4 to 64");
  end
  if (Lanes < 2 || Lanes > Dim || Dim % Lanes != 0) begin : gen_bad_lanes
    $error("Lanes must be at least 2 and divide Dim");
  end
  if (!(BusChunks inside {1, 2, 4}) || (BusChunks > 1 && (16 * BusChunks > Dim || 2 * BusChunks > Lanes))) begin : gen_bad_bus
    $error("A beat of the bus is 1, 2 or 4 chunks, and no more than a word of codes or the lanes take");
  end

  logic core_rst_n, run, start, stop, quiet, progress, feed;
  logic [2:0] load_chunks, store_chunks;
  logic [31:0] program_start, program_length, memory_base, memory_limit, index;
  logic done, read_error, write_error;
  error_e error;
  logic [3:0] unit_busy, stall, finish;

  ahcq_regs #(
    .Hash(Hash)
  ) u_regs (
    .clk_i,
    .rst_ni,
    .aw_valid_i   (s_awvalid_i),
    .aw_ready_o   (s_awready_o),
    .aw_addr_i    (s_awaddr_i),
    .w_valid_i    (s_wvalid_i),
    .w_ready_o    (s_wready_o),
    .w_data_i     (s_wdata_i),
    .b_valid_o    (s_bvalid_o),
    .b_ready_i    (s_bready_i),
    .ar_valid_i   (s_arvalid_i),
    .ar_ready_o   (s_arready_o),
    .ar_addr_i    (s_araddr_i),
    .r_valid_o    (s_rvalid_o),
    .r_ready_i    (s_rready_i),
    .r_data_o     (s_rdata_o),
    .irq_o,
    .start_o      (start),
    .run_o        (run),
    .stop_o       (stop),
    .core_rst_no  (core_rst_n),
    .program_o    (program_start),
    .length_o     (program_length),
    .base_o       (memory_base),
    .limit_o      (memory_limit),
    .done_i       (done),
    .error_i      (error),
    .index_i      (index),
    .read_error_i (read_error),
    .write_error_i(write_error),
    .quiet_i      (quiet),
    .progress_i   (progress),
    .feed_i       (feed),
    .load_chunks_i(load_chunks),
    .store_chunks_i(store_chunks),
    .busy_i       (unit_busy),
    .stall_i      (stall),
    .finish_i     (finish)
  );
  assign s_bresp_o = 2'b00;
  assign s_rresp_o = 2'b00;

  // Instructions.
  logic fetch_ar_valid, fetch_ar_ready, fetch_quiet, fetch_r_valid, dispatch;
  logic [31:0] fetch_ar_addr;
  logic [3:0] unit_start, unit_ready, give_valid, give_ready;
  logic [3:0][255:0] head;
  logic [3:0][3:0] give_mask;
  ahcq_control #(
    .Dim      (Dim),
    .BusChunks(BusChunks),
    .ActDepth (ActDepth),
    .WgtDepth (WgtDepth),
    .AccDepth (AccDepth),
    .VecDepth (VecDepth),
    .OutDepth (OutDepth),
    .LgtDepth (LgtDepth),
    .StatDepth(StatDepth)
  ) u_control (
    .clk_i,
    .rst_ni       (core_rst_n),
    .start_i      (start),
    .stop_i       (stop),
    .run_i        (run),
    .program_i    (program_start),
    .length_i     (program_length),
    .base_i       (memory_base),
    .limit_i      (memory_limit),
    .ar_valid_o   (fetch_ar_valid),
    .ar_ready_i   (fetch_ar_ready),
    .ar_addr_o    (fetch_ar_addr),
    .r_valid_i    (fetch_r_valid),
    .r_data_i     (m_rdata_i),
    .r_error_i    (m_rresp_i[1]),
    .quiet_o      (fetch_quiet),
    .unit_ready_i (unit_ready),
    .unit_start_o (unit_start),
    .head_o       (head),
    .give_valid_i (give_valid),
    .give_mask_i  (give_mask),
    .give_ready_o (give_ready),
    .busy_i       (unit_busy),
    .dispatch_o   (dispatch),
    .stall_o      (stall),
    .finish_o     (finish),
    .done_o       (done),
    .error_o      (error),
    .index_o      (index)
  );

  // External memory.
  logic load_ar_valid, load_ar_ready, load_r_ready, load_quiet, store_quiet;
  logic [31:0] load_ar_addr;
  logic [7:0] load_ar_len;
  logic ar_free;
  assign ar_free = !m_arvalid_o || m_arready_i;
  assign fetch_ar_ready = ar_free;
  assign load_ar_ready = ar_free && !fetch_ar_valid;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) m_arvalid_o <= 1'b0;
    else if (ar_free) m_arvalid_o <= fetch_ar_valid || load_ar_valid;
  end
  always_ff @(posedge clk_i) begin
    if (ar_free) begin
      m_arid_o <= fetch_ar_valid ? !IdLoad : IdLoad;
      m_araddr_o <= fetch_ar_valid ? fetch_ar_addr : load_ar_addr;
      m_arlen_o <= fetch_ar_valid ? 8'(4 / BusChunks - 1) : load_ar_len;
    end
  end
  assign m_arsize_o = 3'(3 + $clog2(BusChunks));
  assign m_arburst_o = 2'b01;
  assign m_awsize_o = 3'(3 + $clog2(BusChunks));
  assign m_awburst_o = 2'b01;
  assign m_wstrb_o = '1;
  assign m_bready_o = 1'b1;
  assign fetch_r_valid = m_rvalid_i && m_rid_i != IdLoad;
  assign m_rready_o = m_rid_i != IdLoad || load_r_ready;
  assign read_error = m_rvalid_i && m_rready_o && m_rid_i == IdLoad && m_rresp_i[1];
  assign write_error = m_bvalid_i && m_bresp_i[1];
  assign quiet = fetch_quiet && load_quiet && store_quiet;

  // LOAD.
  logic write_ready;
  write_t write;
  logic [64*BusChunks-1:0] write_data;
  ahcq_load #(
    .Dim      (Dim),
    .BusChunks(BusChunks)
  ) u_load (
    .clk_i,
    .rst_ni        (core_rst_n),
    .stop_i        (stop),
    .start_i       (unit_start[UnitLoad]),
    .start_instr_i (head[UnitLoad]),
    .ready_o       (unit_ready[UnitLoad]),
    .give_valid_o  (give_valid[UnitLoad]),
    .give_mask_o   (give_mask[UnitLoad]),
    .give_ready_i  (give_ready[UnitLoad]),
    .busy_o        (unit_busy[UnitLoad]),
    .chunks_o      (load_chunks),
    .quiet_o       (load_quiet),
    .ar_valid_o    (load_ar_valid),
    .ar_ready_i    (load_ar_ready),
    .ar_addr_o     (load_ar_addr),
    .ar_len_o      (load_ar_len),
    .r_valid_i     (m_rvalid_i && m_rid_i == IdLoad),
    .r_ready_o     (load_r_ready),
    .r_data_i      (m_rdata_i),
    .r_last_i      (m_rlast_i),
    .write_ready_i (write_ready),
    .write_o       (write),
    .write_data_o  (write_data)
  );

  // Scratchpads. The vector unit's accesses go before those of LOAD and STORE.
  slot_t code_slot;
  logic [Lanes-1:0][CodeBits-1:0] code;
  logic vector_act, vector_out, vector_vec;
  assign write_ready = !(write.act && vector_act) && !(write.vec && vector_vec);

  logic act_re, wgt_re, out_re;
  logic [$clog2(ActDepth)-1:0] act_addr;
  logic [$clog2(WgtDepth)-1:0] wgt_addr;
  logic [$clog2(OutDepth)-1:0] out_addr;
  logic [CodeWidth-1:0] act_data, wgt_data, out_data;
  ahcq_scratchpads #(
    .Dim      (Dim),
    .Lanes    (Lanes),
    .BusChunks(BusChunks),
    .ActDepth (ActDepth),
    .WgtDepth (WgtDepth),
    .OutDepth (OutDepth)
  ) u_scratchpads (
    .clk_i,
    .act_valid_i   (vector_act),
    .out_valid_i   (vector_out),
    .code_slot_i   (code_slot),
    .code_i        (code),
    .write_i       (write),
    .write_data_i  (write_data),
    .act_re_i      (act_re),
    .act_addr_i    (act_addr),
    .act_data_o    (act_data),
    .wgt_re_i      (wgt_re),
    .wgt_addr_i    (wgt_addr),
    .wgt_data_o    (wgt_data),
    .out_re_i      (out_re),
    .out_addr_i    (out_addr),
    .out_data_o    (out_data)
  );

  // GEMM.
  logic acc_read, acc_ready;
  logic [Dim-1:0][31:0] acc_data;
  logic [15:0] acc_read_addr;
  ahcq_matrix #(
    .Dim     (Dim),
    .ActDepth(ActDepth),
    .WgtDepth(WgtDepth),
    .AccDepth(AccDepth)
  ) u_matrix (
    .clk_i,
    .rst_ni        (core_rst_n),
    .start_i       (unit_start[UnitGemm]),
    .start_instr_i (head[UnitGemm]),
    .ready_o       (unit_ready[UnitGemm]),
    .give_valid_o  (give_valid[UnitGemm]),
    .give_mask_o   (give_mask[UnitGemm]),
    .give_ready_i  (give_ready[UnitGemm]),
    .busy_o        (unit_busy[UnitGemm]),
    .feed_o        (feed),
    .act_re_o      (act_re),
    .act_addr_o    (act_addr),
    .act_data_i    (act_data),
    .wgt_re_o      (wgt_re),
    .wgt_addr_o    (wgt_addr),
    .wgt_data_i    (wgt_data),
    .decode_we_i   (write.decode),
    .decode_waddr_i(write.word[4:0]),
    .decode_wdata_i({write_data[32+:OperandBits], write_data[0+:OperandBits]}),
    .read_i        (acc_read),
    .read_ready_o  (acc_ready),
    .read_addr_i   (acc_read_addr[$clog2(AccDepth)-1:0]),
    .read_data_o   (acc_data)
  );

  // Vector unit.
  logic vector_active, store_vec_re, store_vec_ready;
  logic [$clog2(VecDepth*Subs)-1:0] store_vec_addr;
  logic [Lanes-1:0][31:0] vec_data;
  ahcq_vector #(
    .Dim      (Dim),
    .Lanes    (Lanes),
    .BusChunks(BusChunks),
    .VecDepth (VecDepth),
    .LgtDepth (LgtDepth),
    .StatDepth(StatDepth)
  ) u_vector (
    .clk_i,
    .rst_ni       (core_rst_n),
    .start_i      (unit_start[UnitVector]),
    .start_instr_i(head[UnitVector]),
    .ready_o      (unit_ready[UnitVector]),
    .give_valid_o (give_valid[UnitVector]),
    .give_mask_o  (give_mask[UnitVector]),
    .give_ready_i (give_ready[UnitVector]),
    .busy_o       (unit_busy[UnitVector]),
    .active_o     (vector_active),
    .acc_read_o   (acc_read),
    .acc_ready_i  (acc_ready),
    .acc_addr_o   (acc_read_addr),
    .acc_data_i   (acc_data),
    .write_i      (write),
    .write_data_i (write_data),
    .vec_busy_o   (vector_vec),
    .store_re_i   (store_vec_re),
    .store_ready_o(store_vec_ready),
    .store_addr_i (store_vec_addr),
    .vec_data_o   (vec_data),
    .act_valid_o  (vector_act),
    .out_valid_o  (vector_out),
    .code_slot_o  (code_slot),
    .code_o       (code)
  );

  // STORE.
  ahcq_store #(
    .Dim      (Dim),
    .Lanes    (Lanes),
    .BusChunks(BusChunks),
    .OutDepth (OutDepth),
    .VecDepth (VecDepth)
  ) u_store (
    .clk_i,
    .rst_ni       (core_rst_n),
    .stop_i       (stop),
    .start_i      (unit_start[UnitStore]),
    .start_instr_i(head[UnitStore]),
    .ready_o      (unit_ready[UnitStore]),
    .give_valid_o (give_valid[UnitStore]),
    .give_mask_o  (give_mask[UnitStore]),
    .give_ready_i (give_ready[UnitStore]),
    .busy_o       (unit_busy[UnitStore]),
    .chunks_o     (store_chunks),
    .quiet_o      (store_quiet),
    .aw_valid_o   (m_awvalid_o),
    .aw_ready_i   (m_awready_i),
    .aw_addr_o    (m_awaddr_o),
    .aw_len_o     (m_awlen_o),
    .w_valid_o    (m_wvalid_o),
    .w_ready_i    (m_wready_i),
    .w_data_o     (m_wdata_o),
    .w_last_o     (m_wlast_o),
    .b_valid_i    (m_bvalid_i),
    .out_re_o     (out_re),
    .out_addr_o   (out_addr),
    .out_data_i   (out_data),
    .vec_re_o     (store_vec_re),
    .vec_ready_i  (store_vec_ready),
    .vec_addr_o   (store_vec_addr),
    .vec_data_i   (vec_data)
  );

  assign progress = feed || vector_active || dispatch ||
      unit_start != '0 || finish != '0 || load_chunks != '0 || store_chunks != '0 ||
      (m_rvalid_i && m_rready_o) || m_bvalid_i;
endmodule
