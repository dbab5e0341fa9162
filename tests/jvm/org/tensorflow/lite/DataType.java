package org.tensorflow.lite;

/** A stand-in with the names of LiteRT's own. */
public enum DataType { FLOAT32, INT32, UINT8, INT64, STRING, BOOL, INT16, INT8 }
