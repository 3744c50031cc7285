// A picture of 8 bits from a binary PPM (P6), which every converter writes: `convert a.jpg a.ppm`.

#pragma once

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

struct Picture {
    size_t height, width;
    std::vector<uint8_t> bgr;  // (height, width, 3)
};

inline Picture read_ppm(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::string magic;
    size_t width = 0, height = 0, most = 0;
    file >> magic >> width >> height >> most;
    file.get();
    const size_t limit = 1 << 15;
    if (!file || magic != "P6" || most != 255 || !width || !height || width > limit || height > limit)
        throw std::runtime_error(path + ": wanted a binary PPM (P6) of 8 bits");
    Picture picture{height, width, std::vector<uint8_t>(height * width * 3)};
    file.read(reinterpret_cast<char*>(picture.bgr.data()), picture.bgr.size());
    if (static_cast<size_t>(file.gcount()) != picture.bgr.size())
        throw std::runtime_error(path + ": is cut off");
    for (size_t i = 0; i < picture.bgr.size(); i += 3)  // PPM is RGB
        std::swap(picture.bgr[i], picture.bgr[i + 2]);
    return picture;
}
