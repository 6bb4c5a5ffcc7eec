<?xml version="1.0" encoding="UTF-8"?>
<!-- Shows a Define-XML 2.1 file as a page: data sets, their variables, code lists, methods. -->
<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform" xmlns:odm="http://www.cdisc.org/ns/odm/v1.3" xmlns:def="http://www.cdisc.org/ns/def/v2.1" xmlns:xlink="http://www.w3.org/1999/xlink" exclude-result-prefixes="odm def xlink">
<xsl:output method="html" encoding="UTF-8" doctype-system="about:legacy-compat"/>
<xsl:key name="item" match="odm:ItemDef" use="@OID"/>
<xsl:key name="method" match="odm:MethodDef" use="@OID"/>
<xsl:key name="comment" match="def:CommentDef" use="@OID"/>
<xsl:template match="/odm:ODM">
<html lang="en">
<head>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<title>Data definitions of <xsl:value-of select="odm:Study/odm:GlobalVariables/odm:StudyName"/></title>
<style>body{font:14px/1.5 system-ui,sans-serif;margin:24px auto;max-width:1300px;padding:0 20px;color:#1a2027}table{border-collapse:collapse;width:100%;font-size:13px}th,td{text-align:left;vertical-align:top;padding:4px 14px 4px 0;border-bottom:1px solid #dde3e8}h2{margin-top:34px;font-size:18px}dt{font-weight:600}</style>
</head>
<body>
<h1>Data definitions of <xsl:value-of select="odm:Study/odm:GlobalVariables/odm:StudyName"/></h1>
<p><xsl:value-of select="odm:Study/odm:GlobalVariables/odm:StudyDescription"/></p>
<xsl:apply-templates select="odm:Study/odm:MetaDataVersion"/>
</body>
</html>
</xsl:template>
<xsl:template match="odm:MetaDataVersion">
<h2>Data sets</h2>
<table>
<thead><tr><th>Data set</th><th>Description</th><th>Class</th><th>Structure</th><th>Purpose</th><th>File</th></tr></thead>
<tbody>
<xsl:for-each select="odm:ItemGroupDef">
<tr><th><a href="#{@OID}"><xsl:value-of select="@Name"/></a></th><td><xsl:value-of select="odm:Description/odm:TranslatedText"/></td><td><xsl:value-of select="def:Class/@Name"/></td><td><xsl:value-of select="@def:Structure"/></td><td><xsl:value-of select="@Purpose"/></td><td><a href="{def:leaf/@xlink:href}"><xsl:value-of select="def:leaf/def:title"/></a></td></tr>
</xsl:for-each>
</tbody>
</table>
<xsl:for-each select="odm:ItemGroupDef">
<h2 id="{@OID}"><xsl:value-of select="@Name"/>: <xsl:value-of select="odm:Description/odm:TranslatedText"/></h2>
<table>
<thead><tr><th>Variable</th><th>Label</th><th>Type</th><th>Key</th><th>Code list</th><th>Origin</th><th>Method or comment</th></tr></thead>
<tbody>
<xsl:for-each select="odm:ItemRef">
<xsl:variable name="item" select="key('item', @ItemOID)"/>
<tr>
<th><xsl:value-of select="$item/@Name"/></th>
<td><xsl:value-of select="$item/odm:Description/odm:TranslatedText"/></td>
<td><xsl:value-of select="$item/@DataType"/></td>
<td><xsl:value-of select="@KeySequence"/></td>
<td><xsl:if test="$item/odm:CodeListRef"><a href="#{$item/odm:CodeListRef/@CodeListOID}"><xsl:value-of select="substring-after($item/odm:CodeListRef/@CodeListOID, 'CL.')"/></a></xsl:if></td>
<td><xsl:value-of select="$item/def:Origin/@Type"/></td>
<td><xsl:value-of select="key('method', @MethodOID)/odm:Description/odm:TranslatedText"/><xsl:value-of select="key('comment', $item/@def:CommentOID)/odm:Description/odm:TranslatedText"/></td>
</tr>
</xsl:for-each>
</tbody>
</table>
</xsl:for-each>
<xsl:for-each select="odm:CodeList">
<h2 id="{@OID}">Code list <xsl:value-of select="@Name"/></h2>
<dl><xsl:for-each select="odm:CodeListItem"><dt><xsl:value-of select="@CodedValue"/></dt><dd><xsl:value-of select="odm:Decode/odm:TranslatedText"/></dd></xsl:for-each></dl>
</xsl:for-each>
</xsl:template>
</xsl:stylesheet>
