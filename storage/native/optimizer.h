// The arithmetic of the optimizers, per element and per row. Formulas and sources stand in
// storage/optimizer.py; names of the scalars are those of the dataclasses there.
//
// A row has ELEMENT_STATES floats of state per element (s0, s1) and ROW_STATES floats of its own.
// One step: `scale = row(state, mean_square)` once (mean_square is given to optimizers with row
// state only), then `element(w, g, s0, s1, scale)` for every element.
//
// Multiply-adds are written as fma and no compiler makes others (see init.h), so that the CPU and
// the GPU round alike.
#pragma once

#include "config.h"

namespace ff {

enum class OptimizerKind : uint8_t {
  sgd = 0,
  adagrad = 1,
  rowwise_adagrad = 2,
  adam = 3,
  rowwise_adam = 4,
  ftrl = 5
};

struct Sgd {
  static constexpr int ELEMENT_STATES = 0, ROW_STATES = 0;
  float lr;

  FF_HD float row(float*, float) const { return lr; }
  FF_HD void element(float& w, float g, float&, float&, float scale) const {
    w = fmaf(-scale, g, w);
  }
};

struct Adagrad {
  static constexpr int ELEMENT_STATES = 1, ROW_STATES = 0;
  float lr, eps;

  FF_HD float row(float*, float) const { return lr; }
  FF_HD void element(float& w, float g, float& sum, float&, float scale) const {
    sum = fmaf(g, g, sum);
    w -= scale * g / (sqrtf(sum) + eps);
  }
};

struct RowwiseAdagrad {
  static constexpr int ELEMENT_STATES = 0, ROW_STATES = 1;
  float lr, eps;

  FF_HD float row(float* sum, float mean_square) const {
    sum[0] += mean_square;
    return lr / (sqrtf(sum[0]) + eps);
  }
  FF_HD void element(float& w, float g, float&, float&, float scale) const {
    w = fmaf(-scale, g, w);
  }
};

struct Adam {
  static constexpr int ELEMENT_STATES = 2, ROW_STATES = 0;
  float lr, beta1, beta2, eps;
  float unbias1, unbias2;  // 1 / (1 - beta^step)

  FF_HD float row(float*, float) const { return lr * unbias1; }
  FF_HD void element(float& w, float g, float& m, float& v, float scale) const {
    m = fmaf(beta1, m, (1.0f - beta1) * g);
    v = fmaf(beta2, v, (1.0f - beta2) * (g * g));
    w -= scale * m / (sqrtf(v * unbias2) + eps);
  }
};

struct RowwiseAdam {
  static constexpr int ELEMENT_STATES = 1, ROW_STATES = 1;
  float lr, beta1, beta2, eps;
  float unbias1, unbias2;

  FF_HD float row(float* v, float mean_square) const {
    v[0] = fmaf(beta2, v[0], (1.0f - beta2) * mean_square);
    return lr * unbias1 / (sqrtf(v[0] * unbias2) + eps);
  }
  FF_HD void element(float& w, float g, float& m, float&, float scale) const {
    m = fmaf(beta1, m, (1.0f - beta1) * g);
    w = fmaf(-scale, m, w);
  }
};

struct Ftrl {
  static constexpr int ELEMENT_STATES = 2, ROW_STATES = 0;
  float lr, beta, l1, l2;

  FF_HD float row(float*, float) const { return 1.0f / lr; }
  FF_HD void element(float& w, float g, float& z, float& n, float scale) const {
    const float root = sqrtf(n), grown = fmaf(g, g, n), next = sqrtf(grown);
    z += fmaf((root - next) * scale, w, g);
    n = grown;
    const float excess = fabsf(z) - l1;
    const float pull = z < 0.0f ? excess : -excess;
    const float moved = pull / fmaf(beta + next, scale, l2);
    w = excess > 0.0f ? moved : 0.0f;
  }
};

}  // namespace ff
