"""Loss functions: tensors -> scalar."""
