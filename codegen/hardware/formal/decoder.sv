// One entry of the tables, any of them: a read gives what was written last, or 0. Proved by induction.
module decoder
  import ahcq_isa_pkg::*;
(
  input logic                        clk_i,
  input logic                        we_i,
  input logic [4:0]                  waddr_i,
  input logic [1:0][OperandBits-1:0] wdata_i,
  input logic [1:0]                  table_i,
  input logic [CodeBits-1:0]         code_i
);
  logic signed [OperandBits-1:0] operand;
  ahcq_decoder u_decoder (
    .clk_i,
    .we_i,
    .waddr_i,
    .wdata_i,
    .table_i,
    .code_i,
    .operand_o(operand)
  );

  logic [5:0] entry_q;  // no initial value: any, and it stays
  logic [OperandBits-1:0] written_q = '0;
  logic [OperandBits-1:0] expected_q;
  logic read_q = 1'b0;
  always_ff @(posedge clk_i) begin
    entry_q <= entry_q;
    if (we_i && waddr_i == entry_q[5:1]) written_q <= wdata_i[entry_q[0]];
    read_q <= {table_i, code_i} == entry_q;
    expected_q <= written_q;
  end
  always_comb begin
    assert (written_q == (entry_q[0] ? u_decoder.odd[entry_q[5:1]] : u_decoder.even[entry_q[5:1]]));
    if (read_q) assert (operand == expected_q);
  end
endmodule
