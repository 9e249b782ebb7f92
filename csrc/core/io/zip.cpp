#include "core/io/zip.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "core/engine/error.hpp"

namespace nearsight {
namespace {

constexpr std::uint32_t kEndOfDirectory = 0x06054b50, kEndOfDirectory64 = 0x06064b50, kLocator64 = 0x07064b50,
                        kDirectoryEntry = 0x02014b50;
constexpr std::size_t kEndSize = 22, kLocatorSize = 20, kEnd64Size = 56, kEntrySize = 46, kLocalSize = 30;

template <class T>
T little_endian(const std::string& bytes, std::size_t at) {
  T value = 0;
  for (std::size_t k = 0; k < sizeof(T); ++k)
    value |= static_cast<T>(static_cast<T>(static_cast<unsigned char>(bytes[at + k])) << (8 * k));
  return value;
}

std::uint32_t crc32(const std::string& bytes) {
  static const auto table = [] {
    std::array<std::uint32_t, 256> t{};
    for (std::uint32_t n = 0; n < 256; ++n) {
      std::uint32_t c = n;
      for (int k = 0; k < 8; ++k) c = (c & 1) ? 0xedb88320u ^ (c >> 1) : c >> 1;
      t[n] = c;
    }
    return t;
  }();
  std::uint32_t c = 0xffffffffu;
  for (const char byte : bytes) c = table[(c ^ static_cast<unsigned char>(byte)) & 0xff] ^ (c >> 8);
  return c ^ 0xffffffffu;
}

[[noreturn]] void damaged(const std::string& path) {
  throw Error(ErrorKind::file,
              "'" + path +
                  "' is truncated or not a nearsight model: expected a zip archive written by "
                  "`nearsight export`; export or copy the file again");
}

}  // namespace

std::string ZipReader::bytes(std::uint64_t offset, std::uint64_t size) const {
  if (offset > file_size_ || size > file_size_ - offset) damaged(path_);
  std::ifstream file(path_, std::ios::binary);
  std::string content(size, '\0');
  file.seekg(static_cast<std::streamoff>(offset));
  file.read(&content[0], static_cast<std::streamsize>(size));
  if (!file) damaged(path_);
  return content;
}

ZipReader::ZipReader(const std::string& path) : path_(path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) throw Error(ErrorKind::file, "cannot open model file '" + path + "': " + std::strerror(errno));
  // A folder opens, but has no size and no content.
  const auto size = file.tellg();
  if (size < 0 || static_cast<std::uint64_t>(size) > (std::uint64_t(1) << 62) || !file.seekg(0))
    damaged(path);
  file_size_ = static_cast<std::uint64_t>(size);

  // The end record lies at the very end, before a comment of at most 64 KiB.
  const std::uint64_t tail_size = std::min<std::uint64_t>(file_size_, kEndSize + 0xffff);
  const std::string tail = bytes(file_size_ - tail_size, tail_size);
  if (tail.size() < kEndSize) damaged(path);
  std::size_t end = tail.size() - kEndSize;
  while (little_endian<std::uint32_t>(tail, end) != kEndOfDirectory) {
    if (end == 0) damaged(path);
    --end;
  }
  std::uint64_t count = little_endian<std::uint16_t>(tail, end + 10);
  std::uint64_t directory_size = little_endian<std::uint32_t>(tail, end + 12);
  std::uint64_t directory = little_endian<std::uint32_t>(tail, end + 16);
  if (end >= kLocatorSize && little_endian<std::uint32_t>(tail, end - kLocatorSize) == kLocator64) {
    const std::string end64 = bytes(little_endian<std::uint64_t>(tail, end - kLocatorSize + 8), kEnd64Size);
    if (little_endian<std::uint32_t>(end64, 0) != kEndOfDirectory64) damaged(path);
    count = little_endian<std::uint64_t>(end64, 32);
    directory_size = little_endian<std::uint64_t>(end64, 40);
    directory = little_endian<std::uint64_t>(end64, 48);
  }

  const std::string d = bytes(directory, directory_size);
  std::size_t at = 0;
  for (std::uint64_t k = 0; k < count; ++k) {
    if (at + kEntrySize > d.size() || little_endian<std::uint32_t>(d, at) != kDirectoryEntry) damaged(path);
    const std::size_t name_size = little_endian<std::uint16_t>(d, at + 28);
    const std::size_t extra_size = little_endian<std::uint16_t>(d, at + 30);
    const std::size_t comment_size = little_endian<std::uint16_t>(d, at + 32);
    if (at + kEntrySize + name_size + extra_size + comment_size > d.size()) damaged(path);
    Entry entry{d.substr(at + kEntrySize, name_size), little_endian<std::uint32_t>(d, at + 42),
                little_endian<std::uint32_t>(d, at + 24), little_endian<std::uint32_t>(d, at + 16),
                little_endian<std::uint16_t>(d, at + 10)};
    // zip64: 64-bit size and offset stand in extra field 1, in this order, where the 32-bit ones are all
    // ones.
    std::size_t field = at + kEntrySize + name_size;
    const std::size_t fields_end = field + extra_size;
    while (field + 4 <= fields_end) {
      const std::size_t length = little_endian<std::uint16_t>(d, field + 2);
      if (little_endian<std::uint16_t>(d, field) == 1) {
        std::size_t value = field + 4;
        const std::size_t last = std::min(value + length, fields_end);
        if (entry.size == 0xffffffffu && value + 8 <= last)
          entry.size = little_endian<std::uint64_t>(d, value), value += 8;
        if (little_endian<std::uint32_t>(d, at + 20) == 0xffffffffu) value += 8;
        if (entry.offset == 0xffffffffu && value + 8 <= last)
          entry.offset = little_endian<std::uint64_t>(d, value);
      }
      field += 4 + length;
    }
    entries_.push_back(entry);
    at += kEntrySize + name_size + extra_size + comment_size;
  }
}

bool ZipReader::read(const std::string& suffix, std::string& content) const {
  for (const Entry& entry : entries_) {
    if (entry.name.size() < suffix.size() ||
        entry.name.compare(entry.name.size() - suffix.size(), suffix.size(), suffix) != 0)
      continue;
    if (entry.method != 0)
      throw Error(ErrorKind::file, "'" + path_ + "' was compressed again: entry '" + entry.name +
                                       "' must be stored as it was exported; export the model again");
    const std::string local = bytes(entry.offset, kLocalSize);
    const std::uint64_t start = entry.offset + kLocalSize + little_endian<std::uint16_t>(local, 26) +
                                little_endian<std::uint16_t>(local, 28);
    content = bytes(start, entry.size);
    if (crc32(content) != entry.crc)
      throw Error(ErrorKind::file, "'" + path_ + "' is corrupted: the checksum of '" + entry.name +
                                       "' is wrong; copy the file again");
    return true;
  }
  return false;
}

}  // namespace nearsight
