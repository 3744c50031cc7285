"""Names of object classes: COCO's 80, Pascal VOC's 20, and rules for a model that comes without names."""

COCO_NAMES = (
    "person", "bicycle", "car", "motorbike", "aeroplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "sofa", "pottedplant", "bed", "diningtable", "toilet",
    "tvmonitor", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)
VOC_NAMES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
KNOWN_NAMES = {len(COCO_NAMES): ("COCO", COCO_NAMES), len(VOC_NAMES): ("Pascal VOC", VOC_NAMES)}


def default_names(num_classes: int) -> list[str]:
    """COCO's names for 80 classes, Pascal VOC's for 20, else ``class0``, ``class1`` and so on."""
    if num_classes in KNOWN_NAMES:
        return list(KNOWN_NAMES[num_classes][1])
    return [f"class{index}" for index in range(num_classes)]
