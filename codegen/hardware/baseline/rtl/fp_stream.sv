// Buffer of a stream of words: chunks of 64 bits come in, as far apart as memory gives them; a word a cycle goes out.
module fp_stream #(
  parameter int unsigned WordBits = 32,
  parameter int unsigned Depth = 512  // chunks
) (
  input  logic                clk_i,
  input  logic                rst_ni,
  input  logic                valid_i,
  output logic                ready_o,
  input  logic [63:0]         chunk_i,
  output logic                valid_o,
  input  logic                ready_i,
  output logic [WordBits-1:0] word_o
);
  localparam int unsigned Words = 64 / WordBits;
  localparam int unsigned AddrWidth = $clog2(Depth);

  logic [63:0] next, chunk_q;
  logic next_valid_q, push, refill, read, empty_q, stored_d;
  logic [AddrWidth:0] level_d, level_q, stored_q;  // all chunks that wait; those not yet read
  logic [AddrWidth-1:0] head_q, tail_q;
  logic [Words-1:0] left_q;  // one bit a word of the chunk that is still to go

  ahcq_ram #(
    .Width(64),
    .Depth(Depth)
  ) u_ram (
    .clk_i,
    .we_i   (push),
    .waddr_i(tail_q),
    .wdata_i(chunk_i),
    .re_i   (read),
    .raddr_i(head_q),
    .rdata_o(next)
  );
  assign push = valid_i && ready_o;
  assign valid_o = left_q[0];
  assign word_o = chunk_q[WordBits-1:0];
  assign refill = next_valid_q && (!left_q[0] || (ready_i && !left_q[1]));
  assign read = !empty_q && (!next_valid_q || refill);
  assign level_d = level_q + (AddrWidth+1)'(push) - (AddrWidth+1)'(refill);
  assign stored_d = stored_q + (AddrWidth+1)'(push) - (AddrWidth+1)'(read) != '0;

  always_ff @(posedge clk_i) begin
    if (refill) chunk_q <= next;
    else if (ready_i) chunk_q <= chunk_q >> WordBits;
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      ready_o <= 1'b0;
      next_valid_q <= 1'b0;
      empty_q <= 1'b1;
      level_q <= '0;
      stored_q <= '0;
      head_q <= '0;
      tail_q <= '0;
      left_q <= '0;
    end else begin
      ready_o <= level_d != (AddrWidth+1)'(Depth);
      level_q <= level_d;
      stored_q <= stored_q + (AddrWidth+1)'(push) - (AddrWidth+1)'(read);
      empty_q <= !stored_d;
      if (push) tail_q <= tail_q + 1'b1;
      if (read) head_q <= head_q + 1'b1;
      if (read) next_valid_q <= 1'b1;
      else if (refill) next_valid_q <= 1'b0;
      if (refill) left_q <= '1;
      else if (ready_i) left_q <= left_q >> 1;
    end
  end
endmodule
