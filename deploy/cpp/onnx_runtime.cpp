// Find objects with ONNX Runtime in C++: one picture as PPM (P6) in, boxes in its pixels out.
//
//   mindyolo-ext export --weight W.ckpt --format onnx --with_preprocess --nms --output W-whole
//   g++ -O2 -std=c++17 deploy/cpp/onnx_runtime.cpp -I$ORT/include -L$ORT/lib -lonnxruntime -o detect
//   ./detect W-whole.onnx picture.ppm
//
// ORT is an unpacked release of ONNX Runtime; its Python package has the library and no headers.
// The file holds preprocessing and NMS, so the program has neither.

#include <onnxruntime_cxx_api.h>

#include <cstdio>
#include <filesystem>

#include "picture.hpp"

int main(int count, char** words) {
    if (count != 3) {
        std::fprintf(stderr, "usage: %s FILE.onnx PICTURE.ppm\n", words[0]);
        return 2;
    }
    try {
        Picture picture = read_ppm(words[2]);
        Ort::Env env(ORT_LOGGING_LEVEL_ERROR);
        Ort::Session session(env, std::filesystem::path(words[1]).c_str(), Ort::SessionOptions());
        auto memory = Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeCPU);
        const int64_t shape[] = {static_cast<int64_t>(picture.height),
                                 static_cast<int64_t>(picture.width), 3};
        auto image = Ort::Value::CreateTensor<uint8_t>(memory, picture.bgr.data(),
                                                       picture.bgr.size(), shape, 3);
        const char *inputs[] = {"image"}, *outputs[] = {"detections"};
        auto found = session.Run(Ort::RunOptions(), inputs, &image, 1, outputs, 1);
        // (N, 7) number of the image, x1, y1, x2, y2, score, class
        const int64_t rows = found[0].GetTensorTypeAndShapeInfo().GetShape()[0];
        const float* row = found[0].GetTensorData<float>();
        for (int64_t i = 0; i < rows; ++i, row += 7)
            std::printf("%d %.4f %.2f %.2f %.2f %.2f\n", static_cast<int>(row[6]), row[5], row[1],
                        row[2], row[3], row[4]);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
