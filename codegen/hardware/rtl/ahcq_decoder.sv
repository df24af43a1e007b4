// Four tables of 16 operands at the edge of one row of the array; entries arrive in pairs.
module ahcq_decoder
  import ahcq_isa_pkg::*;
(
  input  logic                          clk_i,
  input  logic                          we_i,
  input  logic [4:0]                    waddr_i,
  input  logic [1:0][OperandBits-1:0]   wdata_i,
  input  logic [1:0]                    table_i,
  input  logic [CodeBits-1:0]           code_i,
  output logic signed [OperandBits-1:0] operand_o  // one cycle later
);
  logic [OperandBits-1:0] even[32];
  logic [OperandBits-1:0] odd[32];

  initial begin
    for (int unsigned i = 0; i < 32; i++) begin
      even[i] = '0;
      odd[i] = '0;
    end
  end

  always_ff @(posedge clk_i) begin
    if (we_i) begin
      even[waddr_i] <= wdata_i[0];
      odd[waddr_i] <= wdata_i[1];
    end
    operand_o <= code_i[0] ? odd[{table_i, code_i[3:1]}] : even[{table_i, code_i[3:1]}];
  end
endmodule
