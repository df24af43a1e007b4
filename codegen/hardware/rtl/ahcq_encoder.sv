// Interval encoder of one lane: a binary search over 31 thresholds in five steps, then the code of the interval.
// Six cycles; entries are written in pairs.
module ahcq_encoder
  import ahcq_isa_pkg::*;
(
  input  logic                clk_i,
  input  logic                we_i,
  input  logic [4:0]          waddr_i,   // 0 .. 15 thresholds, 16 .. 31 codes
  input  logic [63:0]         wdata_i,
  input  logic signed [31:0]  value_i,
  output logic [CodeBits-1:0] code_o
);
  // Step k compares with threshold (2 i + 1) * 16 / 2**k - 1 of the interval i found so far.
  logic signed [31:0] level0;
  logic signed [31:0] level1[2];
  logic signed [31:0] level2[4];
  logic signed [31:0] level3[8];
  logic signed [31:0] level4[16];
  logic [CodeBits-1:0] even[16];
  logic [CodeBits-1:0] odd[16];

  initial begin
    level0 = '0;
    for (int unsigned i = 0; i < 2; i++) level1[i] = '0;
    for (int unsigned i = 0; i < 4; i++) level2[i] = '0;
    for (int unsigned i = 0; i < 8; i++) level3[i] = '0;
    for (int unsigned i = 0; i < 16; i++) begin
      level4[i] = '0;
      even[i] = '0;
      odd[i] = '0;
    end
  end

  always_ff @(posedge clk_i) begin
    if (we_i && waddr_i[4]) begin
      even[waddr_i[3:0]] <= wdata_i[CodeBits-1:0];
      odd[waddr_i[3:0]] <= wdata_i[32+:CodeBits];
    end
    if (we_i && !waddr_i[4]) begin
      level4[waddr_i[3:0]] <= wdata_i[31:0];
      if (!waddr_i[0]) level3[waddr_i[3:1]] <= wdata_i[63:32];
      if (waddr_i[1:0] == 2'b01) level2[waddr_i[3:2]] <= wdata_i[63:32];
      if (waddr_i[2:0] == 3'b011) level1[waddr_i[3]] <= wdata_i[63:32];
      if (waddr_i[3:0] == 4'b0111) level0 <= wdata_i[63:32];
    end
  end

  logic signed [31:0] value_q[4];
  logic index1_q;
  logic [1:0] index2_q;
  logic [2:0] index3_q;
  logic [3:0] index4_q;
  logic [4:0] index5_q;

  always_ff @(posedge clk_i) begin
    value_q[0] <= value_i;
    value_q[1] <= value_q[0];
    value_q[2] <= value_q[1];
    value_q[3] <= value_q[2];
    // written with <, which costs a carry chain and no more
    index1_q <= level0 < value_i;
    index2_q <= {index1_q, level1[index1_q] < value_q[0]};
    index3_q <= {index2_q, level2[index2_q] < value_q[1]};
    index4_q <= {index3_q, level3[index3_q] < value_q[2]};
    index5_q <= {index4_q, level4[index4_q] < value_q[3]};
    code_o <= index5_q[0] ? odd[index5_q[4:1]] : even[index5_q[4:1]];
  end
endmodule
