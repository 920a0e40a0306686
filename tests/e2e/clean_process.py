"""Run by `python -I` with TensorFlow alone: loads a pushed model and answers with what its signatures give."""

import sys

import numpy as np
import tensorflow as tf


def main(model_path: str, records_path: str, reference_path: str, out_path: str) -> None:
    records = np.fromfile(records_path, np.uint8).reshape(-1, 3073)
    pixels = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    reference = np.load(reference_path)["pixels"]
    signatures = tf.saved_model.load(model_path).signatures
    encoded = [tf.io.encode_png(image).numpy() for image in pixels]
    examples = [
        tf.train.Example(
            features=tf.train.Features(
                feature={"image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image.tobytes()]))}
            )
        ).SerializeToString()
        for image in pixels
    ]
    classified = signatures["classify"](image_bytes=tf.constant(encoded))
    embedding = signatures["serving_default"](image_bytes=tf.constant(encoded))["embedding"].numpy()
    np.savez(
        out_path,
        signatures=sorted(signatures),
        labels=records[:, 0],
        probabilities=classified["probabilities"].numpy(),
        named=classified["label"].numpy().astype("S"),
        label_names=classified["label_names"].numpy()[0].astype("S"),
        evaluated=signatures["evaluate"](examples=tf.constant(examples))["probabilities"].numpy(),
        embedding=embedding,
        one_by_one=np.concatenate(
            [
                signatures["embed_pixels"](pixels=tf.constant(image[None]))["embedding"].numpy()
                for image in pixels[:20]
            ]
        ),
        empty=signatures["embed_pixels"](pixels=tf.constant(pixels[:0]))["embedding"].numpy(),
        reference=signatures["embed_pixels"](pixels=tf.constant(reference))["embedding"].numpy(),
        keras_imported="keras" in sys.modules and "trainer" in sys.modules,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
