#include "device_scan.h"

#include "scan_args.h"

namespace ff {

void DeviceScan::exclusive(const Stream& stream, uint32_t* data, size_t n, uint32_t* total) {
  const size_t tiles = (n + SCAN_TILE - 1) / SCAN_TILE;
  sums_.reserve(stream, tiles * sizeof(uint32_t));
  const ScanArgs args{data, sums_.as<uint32_t>(), total, n, tiles};
  stream.launch("scan_tiles", tiles, SCAN_THREADS, args);
  stream.launch("scan_sums", 1, SCAN_SUMS_THREADS, args);
  stream.launch("scan_elements", tiles, SCAN_THREADS, args);
}

}  // namespace ff
