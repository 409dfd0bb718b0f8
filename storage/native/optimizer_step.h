// The optimizer of a tile at one step: its scalars as plain data, for loops and kernels.
#pragma once

#include "optimizer.h"

namespace ff {

struct OptimizerStep {
  OptimizerKind kind;
  union {
    Sgd sgd;
    Adagrad adagrad;
    RowwiseAdagrad rowwise_adagrad;
    Adam adam;
    RowwiseAdam rowwise_adam;
    Ftrl ftrl;
  };

  // Calls f with the optimizer that it is.
  template <class F>
  FF_HD auto with(F&& f) const {
    switch (kind) {
      case OptimizerKind::adagrad:
        return f(adagrad);
      case OptimizerKind::rowwise_adagrad:
        return f(rowwise_adagrad);
      case OptimizerKind::adam:
        return f(adam);
      case OptimizerKind::rowwise_adam:
        return f(rowwise_adam);
      case OptimizerKind::ftrl:
        return f(ftrl);
      default:
        return f(sgd);
    }
  }
};

}  // namespace ff
