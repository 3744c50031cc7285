// Find objects with ncnn in C++: one picture as PPM (P6) in, boxes in its pixels out.
//
//   mindyolo-ext export --weight W.ckpt --format ncnn
//   g++ -O2 -std=c++17 deploy/cpp/ncnn.cpp -I$NCNN/include -L$NCNN/lib -lncnn -o detect
//   ./detect W.ncnn.param picture.ppm 0.25 0.45
//
// NCNN is where ncnn was installed (`cmake --install`); its Python package has no headers. The
// numbers are the lowest score and the IoU of NMS. The program prepares pictures as Yolo-FastestV2
// and YOLOX want them, and reads which of both it is from W.ncnn.json.

#include <ncnn/net.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <sstream>

#include "picture.hpp"

struct Box {
    float x1, y1, x2, y2, score;
    int label;
};

struct Input {
    int height, width;
    bool is_stretched, is_rgb;
    float scale, gray;
};

// What follows "key": in the text of the metadata.
std::string value_of(const std::string& text, const std::string& key) {
    const std::string name = "\"" + key + "\": ";
    const size_t place = text.find(name);
    if (place == std::string::npos) throw std::runtime_error("the metadata lacks " + key);
    return text.substr(place + name.size(), 64);
}

Input read_input(const std::string& path) {
    std::ifstream file(path);
    std::stringstream all;
    all << file.rdbuf();
    if (!file) throw std::runtime_error(path + ": cannot be read");
    std::string text = all.str();
    text.erase(std::remove(text.begin(), text.end(), '\\'), text.end());  // JSON within JSON
    const auto is = [&](const char* key, const std::string& wanted) {
        return value_of(text, key).rfind(wanted, 0) == 0;
    };
    Input input{};
    input.is_stretched = is("resize", "\"stretch\"");
    const bool is_yolox = is("rounding", "\"down_twice\"") && is("pad_anchor", "\"topleft\"");
    const bool is_plain = is("mean", "[0.0, 0.0, 0.0]") && is("std", "[1.0, 1.0, 1.0]");
    const bool is_linear = is("resample", "\"linear\"") && is("shrink", "\"linear\"");
    if (!(input.is_stretched || is_yolox) || !is_plain || !is_linear || !is("scale_up", "true"))
        throw std::runtime_error(path + ": wanted pictures as Yolo-FastestV2 or YOLOX takes them");
    if (std::sscanf(value_of(text, "size").c_str(), "[%d, %d]", &input.height, &input.width) != 2)
        throw std::runtime_error(path + ": size is broken");
    input.is_rgb = is("color", "\"rgb\"");
    input.scale = std::strtof(value_of(text, "scale").c_str(), nullptr);
    input.gray = std::strtof(value_of(text, "pad_value").c_str(), nullptr);
    return input;
}

// The picture as the network takes it, and the factors (across, down) from its pixels to there.
ncnn::Mat prepare(const Picture& picture, const Input& input, double factors[2]) {
    int width = static_cast<int>(picture.width), height = static_cast<int>(picture.height);
    factors[0] = static_cast<double>(input.width) / width;
    factors[1] = static_cast<double>(input.height) / height;
    std::vector<uint8_t> pixels = picture.bgr;
    const auto resize = [&](int new_width, int new_height) {
        std::vector<uint8_t> resized(static_cast<size_t>(new_width) * new_height * 3);
        ncnn::resize_bilinear_c3(pixels.data(), width, height, resized.data(), new_width, new_height);
        pixels.swap(resized);
        width = new_width, height = new_height;
    };
    if (input.is_stretched) {
        resize(input.width, input.height);
    } else {
        factors[0] = factors[1] = std::min(factors[0], factors[1]);
        double ratio = factors[0];
        for (int i = 0; i < 2; ++i) {  // fractions are cut off, which may leave room for one more pixel
            resize(std::max(1, static_cast<int>(width * ratio)),
                   std::max(1, static_cast<int>(height * ratio)));
            ratio = std::min(static_cast<double>(input.width) / width,
                             static_cast<double>(input.height) / height);
        }
    }
    const int kind = input.is_rgb ? ncnn::Mat::PIXEL_BGR2RGB : ncnn::Mat::PIXEL_BGR;
    ncnn::Mat image = ncnn::Mat::from_pixels(pixels.data(), kind, width, height), padded;
    ncnn::copy_make_border(image, padded, 0, input.height - height, 0, input.width - width,
                           ncnn::BORDER_CONSTANT, input.gray);
    const float scales[] = {input.scale, input.scale, input.scale};
    padded.substract_mean_normalize(nullptr, scales);
    return padded;
}

float overlap(const Box& a, const Box& b) {
    const float width = std::min(a.x2, b.x2) - std::max(a.x1, b.x1);
    const float height = std::min(a.y2, b.y2) - std::max(a.y1, b.y1);
    const float common = std::max(width, 0.f) * std::max(height, 0.f);
    const auto area = [](const Box& box) { return (box.x2 - box.x1) * (box.y2 - box.y1); };
    return common / (area(a) + area(b) - common);
}

// The best boxes; each stands for its best class and takes those of that class which overlap it.
std::vector<Box> kept(const ncnn::Mat& boxes, const ncnn::Mat& scores, float least, float most) {
    std::vector<Box> all, found;
    for (int i = 0; i < boxes.h; ++i) {
        const float *box = boxes.row(i), *row = scores.row(i), *best = std::max_element(row, row + scores.w);
        if (*best > least)
            all.push_back({box[0], box[1], box[2], box[3], *best, static_cast<int>(best - row)});
    }
    std::stable_sort(all.begin(), all.end(),
                     [](const Box& a, const Box& b) { return a.score > b.score; });
    for (const Box& box : all)
        if (std::none_of(found.begin(), found.end(), [&](const Box& better) {
                return better.label == box.label && overlap(better, box) > most;
            }))
            found.push_back(box);
    return found;
}

int main(int count, char** words) {
    if (count != 3 && count != 5) {
        std::fprintf(stderr, "usage: %s NAME.ncnn.param PICTURE.ppm [SCORE IOU]\n", words[0]);
        return 2;
    }
    try {
        const std::string description = words[1], stem = description.substr(0, description.rfind('.'));
        const Picture picture = read_ppm(words[2]);
        const Input input = read_input(stem + ".json");
        ncnn::Net net;
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = false;
        if (net.load_param(description.c_str()) || net.load_model((stem + ".bin").c_str()))
            throw std::runtime_error(description + ": ncnn cannot load it");
        double factors[2];
        ncnn::Extractor extractor = net.create_extractor();
        extractor.input("in0", prepare(picture, input, factors));
        ncnn::Mat boxes, scores;
        if (extractor.extract("out0", boxes) || extractor.extract("out1", scores))
            throw std::runtime_error(description + ": ncnn cannot compute boxes");
        const auto across = [&](float x) { return std::clamp<double>(x / factors[0], 0, picture.width); };
        const auto down = [&](float y) { return std::clamp<double>(y / factors[1], 0, picture.height); };
        const float least = count == 5 ? std::strtof(words[3], nullptr) : 0.25f;
        const float most = count == 5 ? std::strtof(words[4], nullptr) : 0.45f;
        for (const Box& box : kept(boxes, scores, least, most))
            std::printf("%d %.4f %.2f %.2f %.2f %.2f\n", box.label, box.score, across(box.x1),
                        down(box.y1), across(box.x2), down(box.y2));
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
