"""LitServe with an exported network: `python serve_onnx.py net.onnx 8000`.

POST {"images": [picture, ...]}, each a list of rows of [r, g, b] from 0 to 255, to
/predict. Needs onnxruntime and litserve, neither JAX nor this package.
"""

import json
import sys

import litserve
import numpy as np
import onnxruntime


class Classifier(litserve.LitAPI):
    def setup(self, device):
        self.session = onnxruntime.InferenceSession(sys.argv[1])
        said = self.session.get_modelmeta().custom_metadata_map
        self.class_names = json.loads(said["class_names"])

    def predict(self, request):
        images = np.asarray(request["images"], np.uint8)
        return self.session.run(["probabilities"], {"images": images})[0]

    def encode_response(self, rows):
        names = self.class_names or [str(i) for i in range(rows.shape[1])]
        named = [dict(zip(names, row.tolist(), strict=True)) for row in rows]
        return {"probabilities": named}


if __name__ == "__main__":
    server = litserve.LitServer(Classifier(), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False)
