"""Foundation models as stacks of residual layers."""
