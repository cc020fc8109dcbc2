"""What lies in a checkpoint's folder, looked at before a tensor is allocated: kinds, safety, optimizer. No torch."""
