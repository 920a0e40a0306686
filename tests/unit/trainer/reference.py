"""BYOL's formulas once more, in NumPy and float64, written from the papers and not from `trainer`."""

import math

import numpy as np


def pair_loss(prediction, target):
    p = np.asarray(prediction, np.float64)
    z = np.asarray(target, np.float64)
    p = p / np.linalg.norm(p, axis=1, keepdims=True)
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    return ((p - z) ** 2).sum(axis=1)


def tau(step, total, base):
    return 1 - (1 - base) * (math.cos(math.pi * step / total) + 1) / 2


def learning_rate(step, peak, warmup, total):
    if step < warmup:
        return peak * step / warmup
    return peak * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2


def batch_norm(x, gamma, beta, epsilon=1e-5):
    """Returns the normalised [batch, channels] and its mean and (biased) variance."""
    mean, variance = x.mean(axis=0), x.var(axis=0)
    return gamma * (x - mean) / np.sqrt(variance + epsilon) + beta, mean, variance


def luma(image):
    return image @ np.array([0.299, 0.587, 0.114])


def brightness(image, factor):
    return image * factor


def contrast(image, factor):
    return factor * image + (1 - factor) * luma(image).mean()


def saturation(image, factor):
    return factor * image + (1 - factor) * luma(image)[..., None]


def hue(image, turn):
    """Rotation about the grey axis of YIQ, pixel by pixel."""
    to_yiq = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
    yiq = image @ to_yiq.T
    i, q = yiq[..., 1].copy(), yiq[..., 2].copy()
    angle = 2 * math.pi * turn
    yiq[..., 1] = math.cos(angle) * i - math.sin(angle) * q
    yiq[..., 2] = math.sin(angle) * i + math.cos(angle) * q
    return yiq @ np.linalg.inv(to_yiq).T


def grey(image):
    return np.repeat(luma(image)[..., None], 3, axis=-1)


def blur(image, sigma):
    """Gaussian over the whole axis, weights normalised over the pixels that exist."""
    n = image.shape[0]
    kernel = np.array([[math.exp(-((i - j) ** 2) / (2 * sigma**2)) for j in range(n)] for i in range(n)])
    kernel /= kernel.sum(axis=1, keepdims=True)
    return np.einsum("ij,jkc->ikc", kernel, np.einsum("kl,jlc->jkc", kernel, image))


def solarize(image):
    return np.where(image >= 0.5, 1 - image, image)


def lars(weights, gradients, rates, momentum, decay, eta, clip=False):
    """The weights after one update for each gradient and rate: DeepMind's order of operations."""
    w = np.asarray(weights, np.float64)
    slot = np.zeros_like(w)
    for gradient, rate in zip(gradients, rates, strict=True):
        g = np.asarray(gradient, np.float64)
        if w.ndim > 1:
            g = g + decay * w
            norms = np.linalg.norm(w), np.linalg.norm(g)
            trust = eta * norms[0] / norms[1] if min(norms) > 0 else 1.0
            if clip and min(norms) > 0:
                trust = min(trust / rate, 1.0)
            g = trust * g
        slot = momentum * slot + g
        w = w - rate * slot
    return w


def knn(bank, labels, queries, neighbors, temperature, classes):
    """One query at a time, by a full sort."""
    predicted = []
    for query in queries:
        cosine = [float(b @ query / np.linalg.norm(b) / np.linalg.norm(query)) for b in bank]
        votes = np.zeros(classes)
        for j in np.argsort(cosine)[::-1][:neighbors]:
            votes[labels[j]] += math.exp(cosine[j] / temperature)
        predicted.append(int(votes.argmax()))
    return np.array(predicted)
