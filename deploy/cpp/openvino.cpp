// Find objects with OpenVINO in C++: one picture as PPM (P6) in, boxes in its pixels out.
//
//   mindyolo-ext export --weight W.ckpt --format onnx --with_preprocess --nms --output W-whole
//   g++ -O2 -std=c++17 deploy/cpp/openvino.cpp -I$OV/include -L$OV/libs -l:libopenvino.so.* -o detect
//   ./detect W-whole.onnx picture.ppm
//
// OV is the folder of the package: python -c "import openvino; print(openvino.__path__[0])".
// The file holds preprocessing and NMS, so the program has neither.

#include <openvino/openvino.hpp>

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

struct Picture {
    size_t height, width;
    std::vector<uint8_t> bgr;  // (height, width, 3)
};

Picture read_ppm(const std::string& path) {
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

int main(int count, char** words) {
    if (count != 3) {
        std::fprintf(stderr, "usage: %s FILE.onnx PICTURE.ppm\n", words[0]);
        return 2;
    }
    try {
        Picture picture = read_ppm(words[2]);
        ov::Core core;
        auto model = core.compile_model(core.read_model(words[1]), "CPU",
                                        ov::hint::inference_precision(ov::element::f32));
        auto request = model.create_infer_request();
        request.set_tensor("image", ov::Tensor(ov::element::u8, {picture.height, picture.width, 3},
                                               picture.bgr.data()));
        request.infer();
        ov::Tensor rows = request.get_tensor("detections");  // (N, 7) image, x1 .. y2, score, class
        const float* row = rows.data<const float>();
        for (size_t i = 0; i < rows.get_shape()[0]; ++i, row += 7)
            std::printf("%d %.4f %.2f %.2f %.2f %.2f\n", static_cast<int>(row[6]), row[5], row[1],
                        row[2], row[3], row[4]);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
