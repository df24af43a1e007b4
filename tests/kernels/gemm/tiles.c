/* The AMX tile instructions on memory, with their arithmetic: eight tiles of 16 rows of 64 bytes. */
#include <stdint.h>
#include <string.h>

static _Thread_local uint8_t tiles[8][16][64];

int ahcq_tile_configure(const uint8_t* config) {
  for (int i = 0; i < 8; ++i) {
    if (config[0] != 1 || config[16 + 2 * i] != 64 || config[17 + 2 * i] != 0 || config[48 + i] != 16) return 1;
  }
  memset(tiles, 0xA5, sizeof tiles); /* whoever reads a tile before it is set gets nonsense */
  return 0;
}

int ahcq_tile_zero(int tile) {
  memset(tiles[tile], 0, sizeof tiles[tile]);
  return 0;
}

int ahcq_tile_load(int tile, const uint8_t* address, int64_t stride) {
  for (int r = 0; r < 16; ++r) memcpy(tiles[tile][r], address + r * stride, 64);
  return 0;
}

int ahcq_tile_store(int tile, uint8_t* address, int64_t stride) {
  for (int r = 0; r < 16; ++r) memcpy(address + r * stride, tiles[tile][r], 64);
  return 0;
}

int ahcq_tile_dot(int sum, int unsigned_tile, int signed_tile) {
  for (int r = 0; r < 16; ++r) {
    for (int column = 0; column < 16; ++column) {
      int32_t total;
      memcpy(&total, &tiles[sum][r][4 * column], 4);
      for (int k = 0; k < 64; ++k) {
        total += (int32_t)tiles[unsigned_tile][r][k] * (int8_t)tiles[signed_tile][k / 4][4 * column + k % 4];
      }
      memcpy(&tiles[sum][r][4 * column], &total, 4);
    }
  }
  return 0;
}
