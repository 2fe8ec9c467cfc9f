"""What is done to a trained model: calibration, compression, support vector machines."""
