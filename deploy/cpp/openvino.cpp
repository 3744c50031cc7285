// Find objects with OpenVINO in C++: one picture as PPM (P6) in, boxes in its pixels out.
//
//   mindyolo-ext export --weight W.ckpt --format onnx --with_preprocess --nms --output W-whole
//   g++ -O2 -std=c++17 deploy/cpp/openvino.cpp -I$OV/include -L$OV/libs -l:libopenvino.so.* -o detect
//   ./detect W-whole.onnx picture.ppm
//
// OV is the folder of the package: python -c "import openvino; print(openvino.__path__[0])".
// The file holds preprocessing and NMS, so the program has neither.

#include <openvino/openvino.hpp>

#include <cstdio>

#include "picture.hpp"

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
