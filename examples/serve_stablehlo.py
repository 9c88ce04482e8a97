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


def read(body, size):
    """Returns a picture, upright and on white, its centre square of `size` pixels."""
    picture = PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(body)))
    white = PIL.Image.new("RGBA", picture.size, "white")
    picture = PIL.Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
    wide, high = (side * size // min(picture.size) for side in picture.size)
    left, top = round((wide - size) / 2), round((high - size) / 2)
    picture = picture.resize((wide, high), PIL.Image.Resampling.BILINEAR)
    return np.asarray(picture.crop((left, top, left + size, top + size)))


class Handler(BaseHTTPRequestHandler):
    timeout = 10  # seconds until a request that does not come is given up

    def do_POST(self):
        try:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            picture = read(body, card["size"])
        except (OSError, ValueError) as error:  # no picture, no number, no more bytes
            self.send_error(400, explain=str(error))
            return
        probabilities = np.asarray(program.call(picture[None]))[0].tolist()
        names = card["class_names"] or map(str, range(len(probabilities)))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        answer = dict(zip(names, probabilities, strict=True))
        self.wfile.write(json.dumps(answer).encode())


HTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
