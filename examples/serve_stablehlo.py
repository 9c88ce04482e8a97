"""Answers over HTTP with an exported network: `python serve_stablehlo.py net.zip 8000`.

POST a picture of any size, as PNG or JPEG. Needs jax, Pillow and flatbuffers only.
"""

import io
import json
import sys
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer

import jax
import numpy as np
import PIL.Image
import PIL.ImageOps

with zipfile.ZipFile(sys.argv[1]) as file:
    card = json.loads(file.read("card.json"))
    program = jax.export.deserialize(bytearray(file.read("program.stablehlo")))


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        picture = PIL.Image.open(io.BytesIO(body)).convert("RGB")
        picture = PIL.ImageOps.fit(picture, (card["size"],) * 2, 2)  # bilinear
        probabilities = np.asarray(program.call(np.asarray(picture)[None]))[0]
        answer = dict(zip(card["class_names"], probabilities.tolist(), strict=True))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())


HTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
