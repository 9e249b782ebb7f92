#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace nearsight {

/// Reads entries of a zip archive that are stored without compression, as TorchScript writes them; zip64
/// included.
class ZipReader {
 public:
  /// Throws Error (file) if the file cannot be read or is no complete zip archive.
  explicit ZipReader(const std::string& path);

  /// Content of the entry whose name ends with `suffix`; its checksum is verified. False if there is none.
  bool read(const std::string& suffix, std::string& content) const;

 private:
  struct Entry {
    std::string name;
    std::uint64_t offset, size;
    std::uint32_t crc;
    std::uint16_t method;
  };
  std::string bytes(std::uint64_t offset, std::uint64_t size) const;

  std::string path_;
  std::uint64_t file_size_ = 0;
  std::vector<Entry> entries_;
};

}  // namespace nearsight
